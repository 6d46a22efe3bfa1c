"""Split tiles by group."""
