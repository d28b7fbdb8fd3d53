"""The public interface; every name is imported when it is first used."""

from .api import (
    lazy_enhance as lazy_enhance,
    measure_table as measure_table,
)
from .core.errors import (
    SemsrError as SemsrError,
)
from .core.micrograph import (
    Micrograph as Micrograph,
    Provenance as Provenance,
)
from .core.progress import (
    Progress as Progress,
    run as run,
)
from .io.formats import (
    read as read,
    write as write,
)
from .jobs.live import (
    LiveMosaic as LiveMosaic,
)

__version__: str
from .functions import (
    adapt as adapt,
    calibrate as calibrate,
    convert as convert,
    crop as crop,
    decorrelation as decorrelation,
    degrade as degrade,
    demo as demo,
    doctor as doctor,
    enhance as enhance,
    error_map as error_map,
    export_model as export_model,
    figure as figure,
    frc as frc,
    frc_map as frc_map,
    gaps as gaps,
    import_model as import_model,
    info as info,
    list_models as list_models,
    metrics as metrics,
    model_info as model_info,
    pairs as pairs,
    profile as profile,
    register as register,
    replay as replay,
    restore as restore,
    simulate as simulate,
    spectrum as spectrum,
    stitch as stitch,
    train as train,
)
