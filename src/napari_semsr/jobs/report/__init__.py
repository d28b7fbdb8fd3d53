"""Report on images: figures, measurements, and the method of each."""
