"""One generator of `Progress` per job; panels and commands consume the same."""
