"""Adapt a small network to one's own place, and enhance the sample with it."""
