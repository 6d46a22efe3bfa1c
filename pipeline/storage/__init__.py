"""Files: the only writer, the HDF5 schema, model files, the chain of hashes."""
