from .cluster import (
    connect_client as connect_client,
    report_missing_workers as report_missing_workers,
)
from .engine import (
    enhance_array as enhance_array,
    enhance_to_store as enhance_to_store,
    plan_run as plan_run,
)
from .layout import (
    TrainedPixelSizes as TrainedPixelSizes,
    create_output as create_output,
    plan_output as plan_output,
    plan_resampling as plan_resampling,
)
from .lazy import (
    enhance_lazy as enhance_lazy,
    prepare_preview as prepare_preview,
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
    configure_for_image as configure_for_image,
    prepare_model_input as prepare_model_input,
)
from .predictor import network_details as network_details
