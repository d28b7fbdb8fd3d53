from .augment import AugmentOptions as AugmentOptions, augment_pair as augment_pair
from .cut import (
    PairChoice as PairChoice,
    PairMap as PairMap,
    choose_pairs as choose_pairs,
)
from .options import SPLITS as SPLITS, PairOptions as PairOptions
from .prepare import NUMBERS as NUMBERS, prepare_image as prepare_image
from .store import (
    PairStore as PairStore,
    open_pairs as open_pairs,
    write_pairs as write_pairs,
)
