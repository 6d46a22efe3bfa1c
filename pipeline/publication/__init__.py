"""Describe a run for others: reporting checklists, a model card, a research object, filled from its records only."""
