from .read import is_grey as is_grey
