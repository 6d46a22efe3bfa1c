"""Let a reader of report.html select test tiles and recompute the scores."""
