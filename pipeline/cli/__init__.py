"""Options, progress, exit codes."""
