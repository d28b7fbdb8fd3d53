"""Outputs made again from their histories, and compared with what is stored."""
