from .data_module import TrainingData as TrainingData
from .patches import (
    Patches as Patches,
    binned as binned,
    cut as cut,
    flat as flat,
)
from .scenes import (
    PHANTOM_SEED as PHANTOM_SEED,
    BlockScenes as BlockScenes,
    Scenes as Scenes,
    load_clear as load_clear,
)
from .sources import INSTRUMENTS as INSTRUMENTS
from .stored_pairs import (
    fitting_store as fitting_store,
    to_unit as to_unit,
)
