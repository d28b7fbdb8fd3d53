from .augment import (
    AugmentOptions as AugmentOptions,
    augment_pair as augment_pair,
)
from .cut import (
    DensityMeter as DensityMeter,
    Place as Place,
    balance as balance,
    judge as judge,
    judge_one as judge_one,
    lay_out as lay_out,
    split as split,
)
from .grid import (
    align as align,
    one_side as one_side,
    stated_scale as stated_scale,
)
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
