"""Preprocessors with networks, whose weights are files of the user's. One file for each model or family."""
