"""What can be trained: each target is a module, how it predicts with a frozen base, and how it is written."""
