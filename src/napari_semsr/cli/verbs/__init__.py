"""One module per verb or family of verbs: its arguments, its job, its summary."""
