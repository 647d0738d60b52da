"""What happens to residuals between the ControlNet and the UNet: pure functions of values."""
