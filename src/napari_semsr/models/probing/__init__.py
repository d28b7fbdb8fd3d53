"""What a network is found to do: its reach, and where it depends on its data."""
