"""Write the sections of the report."""
