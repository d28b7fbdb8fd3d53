"""What a laboratory asks: how near do pictures come to the SEM image of their place."""
