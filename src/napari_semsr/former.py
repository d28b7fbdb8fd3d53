"""Names of version 0.1 for what is now called otherwise; they answer, and say so."""

FUNCTIONS = {
    "cut_pairs": "pairs",
    "restore_image": "restore",
    "simulate_scan": "simulate",
    "stitch_frames": "stitch",
}
ARGUMENTS = {
    "simulate": {"folder": "out_dir"},
    "train": {"run_dir": "output", "anew": "from_scratch"},
    "enhance": {"misfit": "residual_map"},
}
"""Arguments of functions and options of commands, by the function or the verb."""
