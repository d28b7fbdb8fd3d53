from .engine import (
    enhance_array as enhance_array,
    enhance_to_store as enhance_to_store,
)
from .layout import (
    Frame as Frame,
    PixelFit as PixelFit,
    Trained as Trained,
    create_output as create_output,
    fit_pixels as fit_pixels,
    output_frame as output_frame,
    unit_side as unit_side,
)
from .lazy import preview_boxes as preview_boxes
from .live.field import LiveField as LiveField
from .options import (
    EnhanceOptions as EnhanceOptions,
    EnhanceReport as EnhanceReport,
)
