"""Profiles along a line: what is read under it; widths, edges and pairs, by fits."""
