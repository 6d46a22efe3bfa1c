"""Draw synthetic demo tiles."""
