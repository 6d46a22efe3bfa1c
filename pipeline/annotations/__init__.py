"""Turn the annotations of slides into labelled tiles."""
