from .frc_map import add_failed_blocks_layer as add_failed_blocks_layer
from .verb_panel import CommandOutcome as CommandOutcome, VerbPanel as VerbPanel
