from .field import LiveField as LiveField
from .run import (
    LiveSink as LiveSink,
    in_view_first as in_view_first,
)
