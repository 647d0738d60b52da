"""The report of a run: one HTML file with curves and pictures, that needs nothing else."""
