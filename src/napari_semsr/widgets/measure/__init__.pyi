from .frc_map import add_failed_layer as add_failed_layer
