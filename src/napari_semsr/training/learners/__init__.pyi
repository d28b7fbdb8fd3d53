from .base import Learner as Learner
from .blind_spot import BlindSpot as BlindSpot
from .cycle_gan import CycleGan as CycleGan
from .paired_gan import PairedGan as PairedGan
from .restorer import RestorerLearner as RestorerLearner
from .supervised import Supervised as Supervised
