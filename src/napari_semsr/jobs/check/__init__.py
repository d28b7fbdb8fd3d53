"""Hallucination tests of models."""
