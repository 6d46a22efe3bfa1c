"""Data sets: folders, tables, downloads."""
