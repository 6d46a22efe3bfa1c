"""Write Markdown and HTML documents."""
