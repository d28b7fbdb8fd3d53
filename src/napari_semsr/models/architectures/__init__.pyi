from .esrgan import RRDBNet as RRDBNet
from .filtered import Deblurred as Deblurred
from .haze import DehazingRestorer as DehazingRestorer
from .informed import (
    InformedRestorer as InformedRestorer,
    Surveyed as Surveyed,
    ThreeScale as ThreeScale,
)
from .published import (
    DISCRIMINATORS as DISCRIMINATORS,
    PUBLISHED as PUBLISHED,
    Correction as Correction,
)
from .two_scale import TwoScale as TwoScale
