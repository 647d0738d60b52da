"""What a run costs, counted before it starts, and the cheapest way that fits into the device's memory."""
