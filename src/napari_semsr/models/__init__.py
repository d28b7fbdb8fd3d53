"""Architectures and the files that hold them."""
