"""ControlNet itself: networks, files, what happens to residuals, preprocessors. Knows no host."""
