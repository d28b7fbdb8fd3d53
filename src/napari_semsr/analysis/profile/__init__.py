"""Profiles along a line: grey levels, and fits of lines, edges and pairs."""
