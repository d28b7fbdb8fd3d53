from .patches import (
    Patches as Patches,
    ScenePatches as ScenePatches,
    binned as binned,
    flat as flat,
)
from .scene_cache import (
    BankBatches as BankBatches,
    Report as Report,
    open_bank as open_bank,
)
from .scenes import (
    PHANTOM_SEED as PHANTOM_SEED,
    SceneDataset as SceneDataset,
    Scenes as Scenes,
    load_clear as load_clear,
)
from .sources import (
    pixel_nm_of as pixel_nm_of,
    simulated as simulated,
)
from .stored_pairs import (
    StoredPatches as StoredPatches,
    fitting_store as fitting_store,
    stored_validation as stored_validation,
)
