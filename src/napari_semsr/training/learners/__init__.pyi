from .base import (
    Learner as Learner,
    check_weights as check_weights,
)
from .cycle_gan import CycleGan as CycleGan
from .paired_gan import PairedGan as PairedGan
from .supervised import Supervised as Supervised
