from .frc_map import add_failed_layer as add_failed_layer
from .verb_panel import VerbOutcome as VerbOutcome, VerbPanel as VerbPanel
