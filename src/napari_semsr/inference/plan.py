"""What is measured and decided before the first tile of a run."""

from dataclasses import dataclass

from napari_semsr.core import Job, Micrograph, Progress, any_finite
from napari_semsr.inference.exact import WAY
from napari_semsr.inference.haze import find_haze
from napari_semsr.inference.layout import PixelFit, identity_of
from napari_semsr.inference.normalise import measure_scaling
from napari_semsr.inference.options import EnhanceOptions
from napari_semsr.inference.predictor import Predictor
from napari_semsr.inference.resample import Shown, show
from napari_semsr.inference.strategy import Way, choose_way
from napari_semsr.inference.tiles import Places, Run, Sink
from napari_semsr.models import LoadedModel


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
    fit : PixelFit
        How the field's pixel size meets the model's.
    """

    run: Run
    predictor: Predictor
    way: Way
    places: Places
    notes: tuple[str, ...]
    fit: PixelFit


def prepare(
    micrograph: Micrograph,
    loaded: LoadedModel,
    options: EnhanceOptions,
    target: Sink,
    *,
    scattered: bool = False,
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
    scattered : bool, default=False
        Whether tiles are run on several workers, that share no memory.

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
    shown = _show(micrograph, predictor, options)
    data, plan = shown.data, shown.plan
    way = choose_way(predictor, options, plan, target.kept(WAY), scattered=scattered)
    notes = (*((shown.fit.note,) if shown.fit.note else ()), *way.notes)
    yield from (Progress(0, 0, note) for note in notes)
    card = loaded.card
    scaling = measure_scaling(data, card.input_percentiles, back=card.grey == "input")
    haze = None
    if options.haze:
        yield Progress(0, 0, "Looking for haze")
        haze = find_haze(data, loaded.module, scaling)
    resampling = shown.record()
    identity = identity_of(micrograph, loaded, options, scaling, resampling)
    target.prepare(shown.outputs, card.scale, identity)
    if target.kept(WAY) is None:
        target.keep(WAY, way.record())
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
        regrid=shown.regrid,
    )
    if scaling.low == scaling.high == 0 and not any_finite(micrograph.data):
        notes += ("The image has no finite pixel, nor has the result.",)
    pending = target.pending(shown.outputs)
    return Prepared(run, predictor, way, pending, notes, shown.fit)


def _show(
    micrograph: Micrograph, predictor: Predictor, options: EnhanceOptions
) -> Shown:
    """Cut the field, and choose the batch."""
    shown = show(
        micrograph,
        predictor.card,
        predictor.probe_within(options.halo_tolerance),
        options,
        constant=predictor.device.type != "cpu",
    )
    predictor.choose_batch(shown.plan.tile(0, 0).window.shape, options.batch)
    return shown
