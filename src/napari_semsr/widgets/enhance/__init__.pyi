from .models import (
    NEWS as NEWS,
    OWN_IMAGE_TIME as OWN_IMAGE_TIME,
    list_installed_models as list_installed_models,
)
