from .field import LiveField as LiveField
from .run import (
    LiveSink as LiveSink,
    run_live as run_live,
)
