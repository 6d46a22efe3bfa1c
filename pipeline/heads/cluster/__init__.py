"""Search and fit heads on Dask workers."""
