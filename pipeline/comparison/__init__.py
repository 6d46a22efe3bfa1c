"""What the predictions say: scores, verdict, and the report in Markdown and HTML."""
