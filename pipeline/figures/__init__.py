"""Draw the figures of a run from tables and arrays."""
