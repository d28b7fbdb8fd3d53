from .table import (
    find_images as find_images,
)
