"""From superlens frames to a measured, SEM-like mosaic."""
