"""Predict with saved networks and heads."""
