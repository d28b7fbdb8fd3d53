"""The hallucination test of a model, for its card."""
