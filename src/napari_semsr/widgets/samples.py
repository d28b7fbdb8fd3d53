"""Sample data for napari's File menu, as calibrated layers."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_semsr.core import Micrograph

LayerData = tuple[Any, dict[str, Any], str]


def watch_viewer() -> None:
    """Set up the current viewer, if there is one, for new layers."""
    from napari import current_viewer

    viewer = current_viewer()
    if viewer is not None:
        from napari_semsr.widgets.base import watch_images

        watch_images(viewer)


def _create_layer_data(*micrographs: "Micrograph") -> list[LayerData]:
    from napari_semsr.widgets.layers import create_layer_keywords

    watch_viewer()
    return [(item.data, create_layer_keywords(item), "image") for item in micrographs]


def degraded_and_truth() -> list[LayerData]:
    """Simulate an SEM-like image and a degraded copy: blurred, hazy and noisy."""
    from napari_semsr.jobs import simulate_exposure, simulate_specimen

    truth = simulate_specimen()
    return _create_layer_data(
        truth, simulate_exposure(truth, noise_seed=1, name="degraded")
    )


def two_exposures() -> list[LayerData]:
    """Simulate two exposures of one field of view with independent noise, for FRC."""
    from napari_semsr.jobs import simulate_exposure, simulate_specimen

    truth, names = simulate_specimen(), ("first exposure", "second exposure")
    return _create_layer_data(
        *(
            simulate_exposure(truth, noise_seed=n, name=name)
            for n, name in enumerate(names, 1)
        )
    )


def gold_pair() -> list[LayerData]:
    """Simulate gold on carbon at two magnifications of the same field of view."""
    from napari_semsr.jobs import simulate_gold_pair as draw_gold_pair

    return _create_layer_data(*reversed(draw_gold_pair()))


def superlens_scan() -> list[LayerData]:
    """Simulate a superlens scan in a temporary folder, and return its frames.

    They are round and vignetted; the ground truth is next to them.
    """
    from napari_semsr.core import run
    from napari_semsr.io import create_scan_layers, open_frames
    from napari_semsr.jobs import SIMULATE, SimulateOptions
    from napari_semsr.widgets.base import find_free_store_path

    folder = find_free_store_path("ssum-scan", suffix="")
    options = SimulateOptions(
        phantom="particles",
        frames_grid=(4, 4),
        overlap=0.6,  # so that half the frames cover much of what the others do
        jitter_px=8.0,
        illumination_drift=0.2,
    )
    run(SIMULATE.job(out_dir=folder, options=options))
    watch_viewer()
    return create_scan_layers(run(open_frames(folder)), folder)


def optical_and_sem(seed: int = 0) -> list[LayerData]:
    """Simulate an area in two microscopes: a stitched optical scan and an SEM image.

    The SEM image has its own pixel size, field and rotation, and is not registered: the
    true transform is in the scan's folder.
    """
    from napari_semsr.core import run
    from napari_semsr.io import STORE_KEY, read
    from napari_semsr.jobs import SIMULATE, STITCH, SimulateOptions
    from napari_semsr.widgets.base import find_free_store_path

    folder = find_free_store_path("one-place-scan", suffix="")
    mosaic = find_free_store_path("one-place-mosaic")
    options = SimulateOptions(
        phantom="circuit",
        frames_grid=(4, 4),
        frame_px=192,
        overlap=0.45,
        relief_nm=40.0,  # thin: light of higher wires cancels that of their ground
        focus_nm=40.0,
        illumination_drift=0.1,
        sem_view=True,
        seed=seed,
    )
    run(SIMULATE.job(out_dir=folder, options=options))
    run(STITCH.job(folder, mosaic))
    paths = {"optical mosaic": mosaic, "SEM image": folder / "sem" / "view.tif"}
    images = ((name, read(path)) for name, path in paths.items())
    layers = _create_layer_data(
        *(i.replace(name=name, data=i.array()) for name, i in images)
    )
    for (_, attributes, _), path in zip(layers, paths.values(), strict=True):
        attributes["metadata"] |= {STORE_KEY: str(path.resolve())}
    return layers
