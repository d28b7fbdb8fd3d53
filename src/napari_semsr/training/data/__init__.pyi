from .data_module import TrainingData as TrainingData
from .patches import (
    Patches as Patches,
    ScenePairs as ScenePairs,
    binned as binned,
    cut as cut,
    flat as flat,
)
from .scenes import (
    PHANTOM_SEED as PHANTOM_SEED,
    BlockScenes as BlockScenes,
    SceneDataset as SceneDataset,
    Scenes as Scenes,
    load_clear as load_clear,
)
from .sources import INSTRUMENTS as INSTRUMENTS
from .stored_pairs import (
    fitting_store as fitting_store,
    to_unit as to_unit,
)
