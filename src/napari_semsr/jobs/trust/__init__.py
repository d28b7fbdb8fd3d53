"""How far what a model made may be off, and how a model's errors are learnt."""
