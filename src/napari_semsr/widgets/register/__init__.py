"""The Register to SEM panel, its landmarks, and how it compares what it brought."""
