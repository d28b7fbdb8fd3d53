"""The Register panel, with landmarks and comparison."""
