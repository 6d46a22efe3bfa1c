"""Parse command lines and run commands."""
