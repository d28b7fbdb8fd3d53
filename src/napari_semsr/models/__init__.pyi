from .architectures.blocks import bicubic as bicubic
from .architectures.filtered import Deblurred as Deblurred
from .architectures.haze import (
    BLOCK as BLOCK,
    DehazingRestorer as DehazingRestorer,
    Haze as Haze,
    block_statistics as block_statistics,
    dehaze as dehaze,
)
from .architectures.informed import (
    SPREAD as SPREAD,
    InformedRestorer as InformedRestorer,
    Surveyed as Surveyed,
)
from .architectures.published import DISCRIMINATORS as DISCRIMINATORS
from .cards import (
    WEIGHTS as WEIGHTS,
    ModelCard as ModelCard,
    bundled as bundled,
    file_digest as file_digest,
    read_card as read_card,
    resolve as resolve,
    write_card as write_card,
)
from .checkpoint import (
    ARCHITECTURES as ARCHITECTURES,
    LoadedModel as LoadedModel,
    build as build,
    build_discriminator as build_discriminator,
    load_model as load_model,
    save_model as save_model,
)
from .esrgan_import import load_esrgan as load_esrgan
from .probing import (
    Answering as Answering,
    FixedMoments as FixedMoments,
    LiveNorm as LiveNorm,
    Moments as Moments,
    Probe as Probe,
    Refreshes as Refreshes,
    effective_fields as effective_fields,
    effective_halo as effective_halo,
    find_refreshes as find_refreshes,
    live_norm as live_norm,
    probe as probe,
    ratio_of as ratio_of,
)
