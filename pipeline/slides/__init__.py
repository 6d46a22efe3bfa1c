"""Read whole slides, find tissue, and tile it."""
