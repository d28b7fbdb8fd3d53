from .figures import (
    CurveStyle as CurveStyle,
    choose_grey_limits as choose_grey_limits,
    draw_curves as draw_curves,
    draw_image_png as draw_image_png,
    draw_overlaps_png as draw_overlaps_png,
    draw_overlay_png as draw_overlay_png,
    draw_plot_png as draw_plot_png,
    draw_position_errors as draw_position_errors,
    draw_position_errors_png as draw_position_errors_png,
    paste_frames as paste_frames,
)
from .page import (
    format_value as format_value,
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
