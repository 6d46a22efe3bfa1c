"""Find, decode, audit and split tiles."""
