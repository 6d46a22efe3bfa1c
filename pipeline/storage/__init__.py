"""Write and read files: atomic writing, records, HDF5, locks."""
