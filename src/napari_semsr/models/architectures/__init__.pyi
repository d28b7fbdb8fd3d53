from .informed import InformedRestorer as InformedRestorer
from .published import (
    ARCHITECTURES as ARCHITECTURES,
    DISCRIMINATORS as DISCRIMINATORS,
)
