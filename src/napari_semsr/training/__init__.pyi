from .fit import train as train, training_device as training_device
from .place import (
    PlaceFit as PlaceFit,
    PlaceImages as PlaceImages,
    PlaceOptions as PlaceOptions,
    PlaceReport as PlaceReport,
    fit_place as fit_place,
    load_place_state as load_place_state,
    save_place_state as save_place_state,
)
from .recipe import (
    SAME as SAME,
    Recipe as Recipe,
    load_recipe as load_recipe,
)
