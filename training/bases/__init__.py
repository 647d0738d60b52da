"""The frozen models that ControlNets are trained on, read from their files."""
