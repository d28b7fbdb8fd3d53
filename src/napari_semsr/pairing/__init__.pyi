from .augment import (
    AugmentOptions as AugmentOptions,
    add_defects as add_defects,
    augment_pair as augment_pair,
)
from .cut import (
    NUMBERS as NUMBERS,
    PairTransform as PairTransform,
    prepare_image as prepare_image,
    select_pairs as select_pairs,
)
from .options import (
    SPLITS as SPLITS,
    PairOptions as PairOptions,
)
from .store import (
    PairStore as PairStore,
    open_pairs as open_pairs,
    write_pairs as write_pairs,
)
