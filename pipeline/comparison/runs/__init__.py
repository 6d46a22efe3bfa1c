"""Compare the heads of several runs on the same test tiles: encoders, heads and baselines, with their prices."""
