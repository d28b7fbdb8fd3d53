"""Verbs in order over many images: a steps file, its checks, the run, one table."""
