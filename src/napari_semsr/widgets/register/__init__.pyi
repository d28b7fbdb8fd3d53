from .panel import find_image_pair as find_image_pair
