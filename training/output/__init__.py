"""What a run leaves on the disk: its folder, checkpoints, history, the finished file, a batch that was lost."""
