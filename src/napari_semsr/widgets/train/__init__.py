"""Train panel with its worker process and loss curves."""
