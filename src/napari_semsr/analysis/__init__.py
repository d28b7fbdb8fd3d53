"""Measures: resolution, spectra, metrics, distributions."""
