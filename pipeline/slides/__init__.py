"""Whole slides: readers, tissue, grids."""
