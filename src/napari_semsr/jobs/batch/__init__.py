"""Batch processing: run the verbs of a steps file on many images."""
