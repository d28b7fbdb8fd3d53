from .fit import train as train
from .patches import Truths as Truths
from .recipe import (
    SAME as SAME,
    Recipe as Recipe,
    load_recipe as load_recipe,
)
