from .canvas import (
    FWHM as FWHM,
    Canvas as Canvas,
    blur_by_width as blur_by_width,
    blur_shares as blur_shares,
    box_distance as box_distance,
    gaussian_blur as gaussian_blur,
)
from .specimen import (
    KINDS as KINDS,
    Kind as Kind,
    ObjectOptions as ObjectOptions,
    Specimen as Specimen,
    draw_object as draw_object,
)
