"""The Register to SEM panel, with landmarks and comparison."""
