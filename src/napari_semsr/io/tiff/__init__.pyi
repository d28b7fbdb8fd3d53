from .read import is_grey as is_grey, list_set_files as list_set_files
