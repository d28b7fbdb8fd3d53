from .table import (
    find_images as find_images,
    format_table_path as format_table_path,
    read_image_rows as read_image_rows,
)
