"""Handle messages, signals, the device, processes and memory."""
