"""One window for all steps of the work, in their order."""
