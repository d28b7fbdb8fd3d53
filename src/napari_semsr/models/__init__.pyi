from .architectures.blocks import upsample_bicubic as upsample_bicubic
from .architectures.informed import (
    Gate as Gate,
    InformedRestorer as InformedRestorer,
    replace_blur as replace_blur,
)
from .architectures.published import (
    ARCHITECTURES as ARCHITECTURES,
    DISCRIMINATORS as DISCRIMINATORS,
)
from .architectures.two_scale import (
    BLOCK as BLOCK,
    SPREAD as SPREAD,
    Haze as Haze,
    SurveyNet as SurveyNet,
    SurveyResult as SurveyResult,
    dehaze as dehaze,
)
from .architectures.wiener import (
    compute_power_spectrum as compute_power_spectrum,
    estimate_white_noise_floor as estimate_white_noise_floor,
    estimate_widest_blur as estimate_widest_blur,
)
from .cards import (
    DEFAULT_MODEL as DEFAULT_MODEL,
    MODELS_BY_INSTRUMENT as MODELS_BY_INSTRUMENT,
    MOSAIC_MODEL as MOSAIC_MODEL,
    SUFFIX as SUFFIX,
    WEIGHTS as WEIGHTS,
    ModelCard as ModelCard,
    find_model as find_model,
    get_library_folder as get_library_folder,
    list_bundled_models as list_bundled_models,
    read_card as read_card,
    resolve_model_path as resolve_model_path,
)
from .checkpoint import (
    LoadedModel as LoadedModel,
    build_discriminator as build_discriminator,
    build_network as build_network,
    load_model as load_model,
    load_training_networks as load_training_networks,
    save_model as save_model,
    save_weights as save_weights,
)
from .devices import (
    Device as Device,
    check_bf16_support as check_bf16_support,
    convert_memory_errors as convert_memory_errors,
    device_count as device_count,
    find_device as find_device,
    find_training_device as find_training_device,
    get_device_name as get_device_name,
    get_first_error_line as get_first_error_line,
    get_free_memory as get_free_memory,
    get_memory_layout as get_memory_layout,
    has_fast_bf16 as has_fast_bf16,
    has_float64 as has_float64,
    is_out_of_memory_error as is_out_of_memory_error,
    release_memory as release_memory,
    to_device as to_device,
)
from .onnx_network import (
    CARD_KEY as CARD_KEY,
    OPSET as OPSET,
    describe_input_scaling as describe_input_scaling,
    export_onnx as export_onnx,
    probe_onnx_network as probe_onnx_network,
    read_graph as read_graph,
)
from .probing import (
    InstanceNormCall as InstanceNormCall,
    NormInterceptor as NormInterceptor,
    ProbeResult as ProbeResult,
    find_minimum_field_size as find_minimum_field_size,
    measure_effective_fields as measure_effective_fields,
    measure_effective_halo as measure_effective_halo,
    probe_network as probe_network,
)
