"""Training of a small network on one area of a sample, to enhance the sample."""
