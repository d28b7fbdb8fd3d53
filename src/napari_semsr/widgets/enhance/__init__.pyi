from .models import (
    NEWS as NEWS,
    OWN_IMAGE_TIME as OWN_IMAGE_TIME,
    QUESTION as QUESTION,
    list_installed_models as list_installed_models,
)
from .panel import start_torch as start_torch
