"""One window for all steps of the workflow, in order."""
