"""Build, score, draw and write class maps of slides."""
