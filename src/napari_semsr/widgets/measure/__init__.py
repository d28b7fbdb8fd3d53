"""Panels that measure: FRC map, spectrum, metrics."""
