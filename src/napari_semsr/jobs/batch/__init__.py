"""Batch processing: run the commands of a steps file on many images."""
