"""Trained networks applied to fields of any size."""
