"""Metrics, intervals, calibration: pure functions of arrays."""
