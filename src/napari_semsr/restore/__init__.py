"""Classical restoration: Wiener, Richardson-Lucy, blind, constrained least squares."""
