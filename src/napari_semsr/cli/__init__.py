"""The `semsr` command."""
