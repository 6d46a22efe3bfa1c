"""Figures of a run, drawn from tables and arrays."""
