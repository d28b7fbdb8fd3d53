"""From superlens frames to a measured, SEM-like mosaic.

Every name of the public interface is imported when it is first used, so that importing
the package loads neither torch nor a graphical toolkit.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_semsr.core.errors import SemsrError
    from napari_semsr.core.micrograph import Micrograph
    from napari_semsr.core.progress import Progress, run
    from napari_semsr.core.provenance import Provenance
    from napari_semsr.io.registry import read, write
    from napari_semsr.services.api import (
        convert,
        degrade,
        demo,
        enhance,
        info,
        list_models,
        train,
    )
    from napari_semsr.services.api_baselines import (
        check_model,
        cut_pairs,
        gaps,
        restore_image,
    )
    from napari_semsr.services.api_crop import crop
    from napari_semsr.services.api_frames import simulate_scan, stitch_frames
    from napari_semsr.services.api_measure import (
        frc,
        frc_map,
        histogram,
        metrics,
        spectrum,
    )

    __version__: str

__all__ = [
    "Micrograph",
    "Progress",
    "Provenance",
    "SemsrError",
    "__version__",
    "check_model",
    "convert",
    "crop",
    "cut_pairs",
    "degrade",
    "demo",
    "enhance",
    "frc",
    "frc_map",
    "gaps",
    "histogram",
    "info",
    "list_models",
    "metrics",
    "read",
    "restore_image",
    "run",
    "simulate_scan",
    "spectrum",
    "stitch_frames",
    "train",
    "write",
]

_HOMES = {
    "Micrograph": "core.micrograph",
    "Progress": "core.progress",
    "Provenance": "core.provenance",
    "SemsrError": "core.errors",
    "check_model": "services.api_baselines",
    "crop": "services.api_crop",
    "cut_pairs": "services.api_baselines",
    "frc": "services.api_measure",
    "frc_map": "services.api_measure",
    "gaps": "services.api_baselines",
    "histogram": "services.api_measure",
    "metrics": "services.api_measure",
    "read": "io.registry",
    "restore_image": "services.api_baselines",
    "run": "core.progress",
    "simulate_scan": "services.api_frames",
    "spectrum": "services.api_measure",
    "stitch_frames": "services.api_frames",
    "write": "io.registry",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("napari-semsr")
    if name not in __all__:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    from importlib import import_module

    home = import_module(f"{__name__}.{_HOMES.get(name, 'services.api')}")
    value = getattr(home, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
