"""Patches to learn from: cut, checked, split, stored, varied."""
