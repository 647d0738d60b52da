"""Does a picture follow its hint? Scores from running the preprocessor again on the picture."""
