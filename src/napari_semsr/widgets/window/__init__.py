"""Window that contains all steps of the workflow, in order."""
