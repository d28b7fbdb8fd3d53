from .figures import (
    Pen as Pen,
    bar_words as bar_words,
    draw_curves as draw_curves,
    draw_offsets as draw_offsets,
    errors_png as errors_png,
    grey_limits as grey_limits,
    image_png as image_png,
    joints_png as joints_png,
    lay_frames as lay_frames,
    overlay_png as overlay_png,
    plot_png as plot_png,
)
from .page import (
    NO_VALUE as NO_VALUE,
    TIMES as TIMES,
    making as making,
    resolution as resolution,
    spread as spread,
    write_number as write_number,
    write_numbers as write_numbers,
    write_page as write_page,
)
from .plate import (
    PlateImage as PlateImage,
    PlateOverlay as PlateOverlay,
    columns_of as columns_of,
    draw_plate as draw_plate,
    words_of_bars as words_of_bars,
)
