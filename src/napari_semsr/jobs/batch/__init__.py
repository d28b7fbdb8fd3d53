"""Batch processing: apply the commands in a steps file to many images."""
