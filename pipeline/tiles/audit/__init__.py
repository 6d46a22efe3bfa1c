"""Find defects of a data set."""
