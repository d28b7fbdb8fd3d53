"""Train a small network on one area of a sample, and enhance the sample with it."""
