"""TIFF, read and written."""
