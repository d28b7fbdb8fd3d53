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
    COLOURS as COLOURS,
    Curve as Curve,
    PlotCanvas as PlotCanvas,
    label_frequency as label_frequency,
    short_label as short_label,
)
from .results import (
    new_store_path as new_store_path,
    require_room as require_room,
)
from .runner import (
    JobRunner as JobRunner,
    is_alive as is_alive,
)
