from .map import (
    TRUST as TRUST,
)
