"""Write and read tables of predictions."""
