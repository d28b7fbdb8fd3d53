"""Profiles along a line: grey levels, and fits of widths, edges and pairs."""
