"""Measure a machine: its limits, and how fast it embeds, trains and fits heads."""
