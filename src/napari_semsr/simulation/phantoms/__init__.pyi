from .canvas import (
    FWHM as FWHM,
    Canvas as Canvas,
    blur_by_width as blur_by_width,
    blur_widths as blur_widths,
    box_distance as box_distance,
    gaussian_blur as gaussian_blur,
    width_share as width_share,
)
from .specimen import (
    KINDS as KINDS,
    Kind as Kind,
    ObjectOptions as ObjectOptions,
    Specimen as Specimen,
    draw_object as draw_object,
)
