"""Panels that measure: resolution, quality, differences, profiles, particles."""
