from .verb_panel import CommandOutcome as CommandOutcome, VerbPanel as VerbPanel
