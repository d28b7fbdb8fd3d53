from .engine import (
    enhance_in_memory as enhance_in_memory,
    enhance_to_store as enhance_to_store,
    plan_run as plan_run,
)
from .lazy import (
    create_enhanced_array as create_enhanced_array,
    prepare_preview as prepare_preview,
)
from .live import LiveField as LiveField
from .options import (
    ADVANCED_GROUP as ADVANCED_GROUP,
    WEIGHTS as WEIGHTS,
    ClusterOptions as ClusterOptions,
    EnhanceOptions as EnhanceOptions,
    EnhanceReport as EnhanceReport,
    TrainedPixelSizes as TrainedPixelSizes,
    create_output_store as create_output_store,
    plan_output as plan_output,
    plan_resampling as plan_resampling,
)
from .plan import (
    configure_model_for_image as configure_model_for_image,
    prepare_model_input as prepare_model_input,
)
from .predictor import get_network_details as get_network_details
