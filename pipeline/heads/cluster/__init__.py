"""Heads searched and fitted on Dask workers."""
