from .esrgan import RRDBNet as RRDBNet
from .informed import (
    InformedRestorer as InformedRestorer,
    ThreeScale as ThreeScale,
)
from .published import (
    DISCRIMINATORS as DISCRIMINATORS,
    PUBLISHED as PUBLISHED,
    Correction as Correction,
)
from .two_scale import TwoScale as TwoScale
