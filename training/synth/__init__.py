"""Procedural picture worlds with captions and hints: the training data of the embedded base."""
