from .fit import train as train
from .recipe import (
    SAME as SAME,
    Recipe as Recipe,
    load_recipe as load_recipe,
)
from .truths import Truths as Truths
