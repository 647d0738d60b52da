"""Model files: what is in them, reading and writing them, and the names of their weights."""
