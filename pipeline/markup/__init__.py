"""Markdown and HTML documents."""
