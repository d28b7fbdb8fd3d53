"""A microsphere superlens: specimens, stage, microscope, scans."""
