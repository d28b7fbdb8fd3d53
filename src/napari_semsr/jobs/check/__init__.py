"""Hallucination tests for models."""
