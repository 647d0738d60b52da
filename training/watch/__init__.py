"""What looks at a run between steps: pictures and their fidelity, the loss gap, alarms."""
