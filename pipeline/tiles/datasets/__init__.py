"""Read data sets from folders, tables and downloads."""
