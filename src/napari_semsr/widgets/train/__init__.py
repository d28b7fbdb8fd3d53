"""The Train panel, its process and its curves."""
