from .form import (
    Form as Form,
    OptionsForm as OptionsForm,
    Row as Row,
)
from .panel import (
    DASH as DASH,
    SIGMA as SIGMA,
    TIMES as TIMES,
    Note as Note,
    Panel as Panel,
    preference as preference,
    table as table,
)
from .plots import (
    Curve as Curve,
    PlotCanvas as PlotCanvas,
    draw_curves as draw_curves,
    draw_frc as draw_frc,
    draw_grey_levels as draw_grey_levels,
    draw_resolutions as draw_resolutions,
)
from .results import (
    FACTOR as FACTOR,
    coarse_levels as coarse_levels,
    new_folder_path as new_folder_path,
    new_store_path as new_store_path,
    require_room as require_room,
)
from .runner import (
    JobRunner as JobRunner,
    is_alive as is_alive,
)
