from .models import (
    NEWS as NEWS,
    listed_models as listed_models,
)
