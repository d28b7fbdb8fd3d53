"""Images brought onto each other."""
