from .figures import (
    CurveStyle as CurveStyle,
    choose_grey_limits as choose_grey_limits,
    draw_curves as draw_curves,
    draw_image_png as draw_image_png,
    draw_plot_png as draw_plot_png,
    draw_position_errors as draw_position_errors,
)
from .page import (
    list_provenance as list_provenance,
    write_json as write_json,
    write_page as write_page,
)
from .plate import (
    FigureImage as FigureImage,
    FigureOverlay as FigureOverlay,
    choose_column_count as choose_column_count,
    describe_scale_bars as describe_scale_bars,
    draw_plate as draw_plate,
)
