"""Embed tiles and slides into HDF5."""
