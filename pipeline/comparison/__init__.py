"""Compare the predictions of heads and of runs: scores, tests, verdicts, sections of the report."""
