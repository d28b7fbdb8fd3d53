from .fit import choose_training_device as choose_training_device, train as train
from .place import (
    AreaFitResult as AreaFitResult,
    AreaImages as AreaImages,
    AreaOptions as AreaOptions,
    AreaProgress as AreaProgress,
    explain_detail as explain_detail,
    fit_area as fit_area,
    load_area_state as load_area_state,
    save_area_state as save_area_state,
)
from .recipe import (
    SAME as SAME,
    Recipe as Recipe,
    load_recipe as load_recipe,
)
