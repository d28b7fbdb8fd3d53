"""The tables of the four papers beside ours: train, evaluate, write the record."""
