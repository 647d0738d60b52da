"""Readers of data sets, one file each; `open_pairs` finds the right one."""
