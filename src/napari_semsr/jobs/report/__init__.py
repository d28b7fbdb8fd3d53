"""What a referee asks: pictures and numbers of images, and how each was found."""
