from .augment import (
    AugmentOptions as AugmentOptions,
    augment_pair as augment_pair,
)
from .cut import (
    PairChoice as PairChoice,
    choose_paired as choose_paired,
    choose_unpaired as choose_unpaired,
)
from .grid import stated_scale as stated_scale
from .options import (
    SPLITS as SPLITS,
    PairOptions as PairOptions,
)
from .prepare import (
    NUMBERS as NUMBERS,
    prepare_image as prepare_image,
)
from .store import (
    ATTRIBUTE as ATTRIBUTE,
    FORMAT as FORMAT,
    PairStore as PairStore,
    SetWriter as SetWriter,
    contact_sheet as contact_sheet,
    open_pairs as open_pairs,
)
