"""Hold the training step of CPUs in bfloat16: the walk through the network, its convolutions and its norms."""
