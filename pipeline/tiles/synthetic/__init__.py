"""Synthetic demo tiles."""
