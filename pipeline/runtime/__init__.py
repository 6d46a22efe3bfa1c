"""Console, progress, signals, device, processes and memory."""
