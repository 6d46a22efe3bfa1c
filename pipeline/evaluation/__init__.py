"""Compute metrics, intervals and calibrations from arrays."""
