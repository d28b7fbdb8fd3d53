from .cluster import (
    remote_client as remote_client,
    without_workers as without_workers,
)
from .engine import (
    enhance_array as enhance_array,
    enhance_to_store as enhance_to_store,
    plan_run as plan_run,
)
from .layout import (
    TrainedPixelSizes as TrainedPixelSizes,
    create_output as create_output,
    fit_pixels as fit_pixels,
    plan_output as plan_output,
)
from .lazy import (
    enhance_lazy as enhance_lazy,
    preview_boxes as preview_boxes,
)
from .live import LiveField as LiveField
from .options import (
    ADVANCED_GROUP as ADVANCED_GROUP,
    WEIGHTS as WEIGHTS,
    ClusterOptions as ClusterOptions,
    EnhanceOptions as EnhanceOptions,
    EnhanceReport as EnhanceReport,
)
from .plan import (
    field_for_model as field_for_model,
    network_and_condition as network_and_condition,
)
from .predictor import made_by_model as made_by_model
