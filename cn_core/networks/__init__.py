"""The boxes of the paper's figure, one file each; all of them build from the same blocks."""
