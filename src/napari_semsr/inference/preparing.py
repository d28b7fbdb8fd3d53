"""What is measured and decided before the first tile of a run."""

from dataclasses import dataclass

from napari_semsr.core.intensity import any_finite
from napari_semsr.core.micrograph import Micrograph
from napari_semsr.core.progress import Job, Progress
from napari_semsr.core.tiling import TilePlan
from napari_semsr.inference.haze import find_haze
from napari_semsr.inference.options import EnhanceOptions
from napari_semsr.inference.planning import choose_tiles, identity_of
from napari_semsr.inference.predictor import Predictor
from napari_semsr.inference.scaling import measure_scaling
from napari_semsr.inference.sinks import Places, Sink
from napari_semsr.inference.tasks import Run
from napari_semsr.inference.ways import Way, choose_way
from napari_semsr.models.checkpoint import LoadedModel

__all__ = ["Prepared", "prepare"]

_WAY = "way"


@dataclass(frozen=True, slots=True)
class Prepared:
    """A run that is ready to begin.

    Attributes
    ----------
    run : Run
        The work.
    predictor : Predictor
        The network on its device.
    way : Way
        How the field is run.
    places : sequence of tuple of int
        Tiles that are not done.
    notes : tuple of str
        What the user should know.
    """

    run: Run
    predictor: Predictor
    way: Way
    places: Places
    notes: tuple[str, ...]


def prepare(
    micrograph: Micrograph, loaded: LoadedModel, options: EnhanceOptions, target: Sink
) -> Job[Prepared]:
    """Measure what holds for the whole field, and make the target ready.

    Parameters
    ----------
    micrograph : Micrograph
        The input.
    loaded : LoadedModel
        The network.
    options : EnhanceOptions
        How it is run.
    target : Sink
        Where tiles go.

    Returns
    -------
    Prepared
        A run that is ready to begin.

    Yields
    ------
    Progress
        What is being measured.

    Raises
    ------
    WriteError
        If the target was begun with another input, model or option.
    """
    yield Progress(0, 0, "Measuring the grey values")
    predictor = Predictor(loaded, device=options.device, precision=options.precision)
    plan = _plan(micrograph, predictor, options)
    way = choose_way(predictor, options, plan, target.kept(_WAY))
    yield from (Progress(0, 0, note) for note in way.notes)
    card, data = loaded.card, micrograph.data
    scaling = measure_scaling(data, card.input_percentiles, back=card.grey == "input")
    haze = None
    if options.haze:
        yield Progress(0, 0, "Looking for haze")
        haze = find_haze(data, loaded.module, scaling)
    identity = identity_of(micrograph, loaded, options, scaling)
    target.prepare(plan, card.scale, identity)
    if target.kept(_WAY) is None:
        target.keep(_WAY, way.record())
    run = Run(
        data=data,
        target=target.array,
        loaded=loaded,
        plan=plan,
        scaling=scaling,
        haze=haze,
        device=options.device,
        precision=options.precision,
        batch=options.batch,
    )
    notes = way.notes
    if scaling.low == scaling.high == 0 and not any_finite(data):
        notes += ("The image has no finite pixel, nor has the result.",)
    return Prepared(run, predictor, way, target.pending(plan), notes)


def _plan(
    micrograph: Micrograph, predictor: Predictor, options: EnhanceOptions
) -> TilePlan:
    """Cut the field, and choose the batch."""
    on_gpu = predictor.device.type != "cpu"
    plan = choose_tiles(
        micrograph.shape,
        predictor.card,
        predictor.probe_within(options.halo_tolerance),
        tile=options.tile,
        constant=on_gpu,
    )
    predictor.choose_batch(plan.tile(0, 0).window.shape, options.batch)
    return plan
