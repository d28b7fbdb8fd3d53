"""A field in one pass: for networks whose statistics or reach are global."""

from collections.abc import Generator, Sequence

from napari_semsr.core.intensity import to_dtype
from napari_semsr.core.tiling import Box
from napari_semsr.inference.predictor import Predictor
from napari_semsr.inference.scaling import set_missing
from napari_semsr.inference.seams import edges_of, sample_of
from napari_semsr.inference.statistics import MeasuredMoments
from napari_semsr.inference.tasks import Piece, Run

__all__ = ["run_whole"]


def run_whole(
    run: Run, predictor: Predictor, places: Sequence[tuple[int, int]]
) -> Generator[list[Piece]]:
    """Enhance a field in one pass and write it tile by tile.

    Parameters
    ----------
    run : Run
        The work; its plan says what is a chunk of the target.
    predictor : Predictor
        The network on its device.
    places : sequence of tuple of int
        Rows and columns of the tiles to write.

    Yields
    ------
    list of Piece
        One tile that is in the target.

    Raises
    ------
    DeviceMemoryError
        If the device has no memory for the field.
    """
    if not places:
        return
    rows, columns = run.plan.padded_shape
    field = Box(0, rows, 0, columns)
    window, missing = run.read(field)
    with MeasuredMoments():
        result = predictor.predict(window, run.scaling)
    scale = run.loaded.card.scale
    set_missing(result, missing, scale)
    for place in places:
        core = run.plan.tile(*place).core.scaled(scale)
        converted, clipped = to_dtype(result[core.slices], run.target.dtype)
        run.target[core.slices] = converted
        sample = sample_of(result[core.slices])
        yield [Piece(place, clipped, edges_of(result, core), sample)]
