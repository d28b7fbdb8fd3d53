from .architectures.blocks import bicubic as bicubic
from .architectures.informed import (
    Gate as Gate,
    InformedRestorer as InformedRestorer,
    blur_known as blur_known,
)
from .architectures.published import (
    ARCHITECTURES as ARCHITECTURES,
    DISCRIMINATORS as DISCRIMINATORS,
)
from .architectures.survey import (
    BLOCK as BLOCK,
    SPREAD as SPREAD,
    Haze as Haze,
    Surveyed as Surveyed,
    SurveyNet as SurveyNet,
    dehaze as dehaze,
)
from .architectures.wiener import (
    power_spectrum as power_spectrum,
    widest_blur as widest_blur,
)
from .cards import (
    WEIGHTS as WEIGHTS,
    ModelCard as ModelCard,
    file_digest as file_digest,
    list_bundled as list_bundled,
    read_card as read_card,
    resolve as resolve,
    write_card as write_card,
)
from .checkpoint import (
    LoadedModel as LoadedModel,
    build as build,
    build_discriminator as build_discriminator,
    load_model as load_model,
    load_training_networks as load_training_networks,
    save_model as save_model,
    save_weights as save_weights,
)
from .devices import (
    Device as Device,
    check_bf16 as check_bf16,
    device_count as device_count,
    device_name as device_name,
    find_device as find_device,
    find_training_device as find_training_device,
    first_line as first_line,
    free_memory as free_memory,
    has_fast_bf16 as has_fast_bf16,
    has_float64 as has_float64,
    is_out_of_memory as is_out_of_memory,
    memory_layout as memory_layout,
    release_memory as release_memory,
    to_device as to_device,
    translated_memory as translated_memory,
)
from .onnx_graph import read_graph as read_graph
from .onnx_network import (
    CARD_KEY as CARD_KEY,
    OPSET as OPSET,
    export_onnx as export_onnx,
    measure_onnx as measure_onnx,
    scaling_sentence as scaling_sentence,
)
from .probing import (
    LiveNorm as LiveNorm,
    NormInterceptor as NormInterceptor,
    Probe as Probe,
    TorchCalls as TorchCalls,
    effective_fields as effective_fields,
    effective_halo as effective_halo,
    probe as probe,
    smallest_side as smallest_side,
)
