"""What a network invents or removes, tested with discs put in and taken out."""
