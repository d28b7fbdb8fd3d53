"""Phantoms and degradations whose truth is known."""
