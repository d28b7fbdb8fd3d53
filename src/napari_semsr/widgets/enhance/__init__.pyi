from .models import (
    NEWS as NEWS,
    OWN_IMAGE_TIME as OWN_IMAGE_TIME,
    listed_models as listed_models,
)
from .panel import start_torch as start_torch
