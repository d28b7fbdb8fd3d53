"""Phantoms, a microscope, scans and degradations whose truth is known."""
