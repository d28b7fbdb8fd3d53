"""Pair store: a zarr group with one subgroup per set.

::

    PAIRS.zarr
      attributes "semsr-pairs": kind, patch, scale, pixel size, options, counts,
                                rejected, images of one area, sources with their
                                grey ranges, provenance
      train, validation, test
        low          (N, P, P)
        high         (N, P * scale, P * scale)
        low_places   (N, 3)  number of the source, row and column of the corner
        high_places  (N, 3)  the same in pixels of HIGH

Patches keep the grey values of their image, and its type unless it was resampled.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_semsr import core
from napari_semsr.pairing.cut import PairSelection, PatchPosition
from napari_semsr.pairing.options import SPLITS, PairOptions

if TYPE_CHECKING:
    import zarr

ATTRIBUTE = "semsr-pairs"
FORMAT = 1
_CHUNK_BYTES = 1 << 22  # chosen: some tens of patches, read together in training


def write_pairs(
    path: Path,
    choice: PairSelection,
    options: PairOptions,
    provenance: core.Provenance,
    map_error_nm: float | None,
    by_image: list[dict[str, object]],
) -> Iterator[core.Progress]:
    """Write the selected pairs to a new folder.

    `map_error_nm` is the expected error of the transform from LOW to HIGH, `by_image`
    has numbers of each pair of images.
    """
    import zarr

    counts = {name: len(pairs) for name, pairs in choice.sets.items()}
    record: core.JsonObject = {
        "format": FORMAT,
        "complete": False,
        "kind": choice.kind,
        "patch": options.patch,
        "scale": options.scale_factor,
        "pixel_size_nm": choice.pixel_nm,
        "map_error_nm": map_error_nm,
        "counts": counts,
        "candidates": choice.candidates,
        "rejected": dict(choice.rejections),
        "images": by_image,
        "same_place": choice.same_place,
        "sources": choice.sources,
        "options": options.model_dump(mode="json"),
        "provenance": provenance.model_dump(mode="json"),
    }
    group = zarr.open_group(path, mode="w-", zarr_format=3)
    group.attrs[ATTRIBUTE] = record

    def read_pair(pair: tuple[PatchPosition, PatchPosition]) -> dict[str, Any]:
        patches: dict[str, Any] = {}
        for side, one in zip(("low", "high"), pair, strict=True):
            patches[side] = choice.read_patch(side, one.source, one.box)
            box = one.box.scale(1 if side == "low" else options.scale_factor)
            patches[f"{side}_places"] = np.array([one.source, box.y0, box.x0], np.int32)
        if options.align:  # charging changes the level locally
            patches["high"] += patches["low"].mean() - patches["high"].mean()
        return patches

    done_count = 0
    for name, pairs in choice.sets.items():
        set_group = group.create_group(name)
        for _ in write_patches(set_group, len(pairs), map(read_pair, pairs)):
            done_count += 1
            yield core.Progress(done_count, sum(counts.values()), "writing pairs")
    group.attrs[ATTRIBUTE] = {**record, "complete": True}


def write_patches(
    group: "zarr.Group", count: int, pairs: Iterable[dict[str, Any]]
) -> Iterator[None]:
    """Write the pairs of one set, one chunk at a time; yield after each pair.

    A pair has ``low``, ``high`` and their ``_places``, by the names of the arrays.
    """
    waiting: list[dict[str, Any]] = []
    for stop, pair in enumerate(pairs, start=1):
        waiting.append(pair)
        largest = max(part.nbytes for part in pair.values())
        size = int(np.clip(_CHUNK_BYTES // max(largest, 1), 1, count))
        if len(waiting) == size or stop == count:
            for name in pair:
                block = np.stack([one[name] for one in waiting])
                sides = block.shape[1:]
                shape, chunks = (count, *sides), (size, *sides)
                array = group.require_array(
                    name, shape=shape, chunks=chunks, dtype=block.dtype
                )
                array[stop - len(block) : stop] = block
            waiting.clear()
        yield


@dataclass(frozen=True, slots=True)
class PairStore:
    """Pair store, open for reading."""

    path: Path
    record: core.JsonObject  # Attributes of the store
    group: "zarr.Group"
    _sources: dict[str, core.RealArray] = field(default_factory=dict, repr=False)

    @property
    def is_paired(self) -> bool:
        """Whether LOW and HIGH patches with the same index show the same area."""
        return bool(self.record["kind"] == "paired")

    @property
    def counts(self) -> dict[str, int]:
        """Number of pairs in each set."""
        return {name: int(self.record["counts"][name]) for name in SPLITS}

    @property
    def transform_error(self) -> tuple[float, float | None] | None:
        """Expected error of the transform from LOW to HIGH, in nm and LOW pixels."""
        error, fine = (self.record.get(k) for k in ("map_error_nm", "pixel_size_nm"))
        if error is None or fine is None:
            return None if error is None else (float(error), None)
        return float(error), float(error) / (float(fine) * int(self.record["scale"]))

    def get_arrays(self, name: str) -> tuple[Any, Any]:
        """Return the lazy LOW and HIGH arrays (N, Y, X) of a set.

        Raises `ReadError` if the set is empty or not one of the three.
        """
        if name not in SPLITS or not self.counts[name]:
            counts_text = ", ".join(f"{k} {n}" for k, n in self.counts.items())
            msg = (
                f"{self.path.name} has no pairs in set {name!r}; the numbers of pairs "
                f"per set are {counts_text}."
            )
            raise core.ReadError(msg, code="set-empty")
        return self.group[f"{name}/low"], self.group[f"{name}/high"]

    def get_ranges(
        self, name: str, index: int
    ) -> tuple[core.FloatPair, core.FloatPair]:
        """Return the grey ranges (percentiles 0.1, 99.9) of a pair's images."""
        first, second = (
            self._get_source_record(name, side, index) for side in ("low", "high")
        )
        (a, b), (c, d) = first["range"], second["range"]
        return (float(a), float(b)), (float(c), float(d))

    def get_image_name(self, name: str, side: str, index: int) -> str | None:
        """Return the image name for one `side` of a pair, if stored."""
        image: str | None = self._get_source_record(name, side, index).get("name")
        return image

    def _get_source_record(self, name: str, side: str, index: int) -> core.JsonObject:
        array = f"{name}/{side}_places"
        if array not in self._sources:  # read once
            places: Any = self.group[array]
            self._sources[array] = np.asarray(places[:])[:, 0]
        number = int(self._sources[array][index])
        source: dict[str, object] = self.record["sources"][side][number]
        return source

    def list_training_images(self) -> list[dict[str, object]]:
        """Return the images and areas used to train models on these pairs.

        For each image its ``name``, ``digest``, the ``unit`` of its plane and ``areas``
        in it, ``[y0, x0, y1, x1]``, of the patches for training and for validation,
        which chooses the model; None if they are in another plane, because of a
        transform or a pixel size that overrides the image's own. An image from which
        another was cut is listed as well, since both share one plane. Empty if the
        store does not record its sources.
        """
        history = self.record.get("provenance")
        if history is None:
            return []
        inputs, options = history["inputs"], history["options"]
        is_moved = {
            "low": options.get("transform") is not None,
            "high": options.get("align", False),
        } | dict.fromkeys(options.get("overridden") or (), True)
        sources_found = []
        sets = [name for name in SPLITS[:2] if self.counts[name]]
        for side in ("low", "high"):
            images = [item for item in inputs if item["role"] == side]
            scale = int(self.record["scale"]) if side == "high" else 1
            extent = int(self.record["patch"]) * scale
            areas: dict[int, list[list[float]]] = {}  # by image
            for name in sets:
                places: Any = self.group[f"{name}/{side}_places"]
                for number, *corner in np.asarray(places[:]).tolist():
                    source = self.record["sources"][side][number]
                    pitch = np.array(source["pixel_size_nm"] or source["spacing_px"])
                    first = np.array(corner) - 0.5
                    start = np.array(source["origin"]) + first * pitch
                    area = [*start, *(start + extent * pitch)]
                    rounded = [round(float(v), 3) for v in area]
                    areas.setdefault(number, []).append(rounded)
            pairs = zip(images, self.record["sources"][side], strict=True)
            for number, (image, source) in enumerate(pairs):
                has_size = source["pixel_size_nm"] is not None
                here = None if is_moved[side] else _merge_areas(areas.get(number, []))
                unit = "nm" if has_size else "px"
                sources_found += [
                    {"name": one["name"], "digest": digest, "unit": unit, "areas": here}
                    for one in _iterate_source_records(image)
                    if (digest := one["digest"]) is not None
                ]
        return sources_found

    def draw_contact_sheet(self) -> NDArray[np.uint8]:
        """Draw pairs of each set, LOW next to HIGH, with the training set on top."""
        shown = (name for name in SPLITS if self.counts[name])
        bands = [_draw_pair_thumbnails(self, name) for name in shown]
        line = np.full((_BETWEEN, bands[0].shape[1]), _WHITE, np.uint8)
        parts = [part for band in bands for part in (line, band)]
        return np.concatenate([*parts, line])


def _iterate_source_records(image: core.JsonObject) -> Iterator[dict[str, object]]:
    """Yield the records of an image and of the images it was cropped from."""
    yield image
    history = image.get("provenance")
    if history is not None and history["job"] == "crop":
        for item in history["inputs"]:
            yield from _iterate_source_records(item)


def _merge_areas(areas: list[list[float]]) -> list[list[float]]:
    """Merge touching areas into rows, then rows of equal width into rectangles."""
    for order in ([0, 2, 1, 3], [1, 3, 0, 2]):  # along x, then along y
        rows: list[list[float]] = []
        for area in sorted([a[i] for i in order] for a in areas):
            if rows and rows[-1][:2] == area[:2] and area[2] <= rows[-1][3]:
                rows[-1][3] = max(rows[-1][3], area[3])
            else:
                rows.append(area)
        areas = [[a[order.index(i)] for i in range(4)] for a in rows]
    return areas


def open_pairs(path: Path) -> PairStore:
    """Open a folder written by `semsr pairs`; patches are read on demand.

    Raises a `ReadError` if it is not a store of pairs, an `IncompleteError` if it is
    unfinished.
    """
    import zarr

    fault = None
    try:
        group = zarr.open_group(core.FolderStore(path, read_only=True), mode="r")
        record = group.attrs.get(ATTRIBUTE)
    except (OSError, ValueError, KeyError) as error:
        record, fault = None, core.describe_access_error(path, error)
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        msg = f"{path} is not a pair store; create one with `pairs()`."
        raise core.ReadError(fault or core.Message(msg, "not-a-pair-store"))
    if not record.get("complete"):
        msg = f"{path} is unfinished; create it again (`overwrite`)."
        raise core.IncompleteError(msg)
    return PairStore(Path(path), dict(record), group)


# The contact sheet: pixels and counts are chosen so that it is about 1200 px wide and
# can be seen at a glance.
_THUMB = 96
_ACROSS = 6  # pairs in its row; chosen
_MOST = {"train": 24, "validation": 12, "test": 12}
_GAP, _BETWEEN = 2, 8  # pixels within a pair and between pairs; chosen
_WHITE = 255


def _draw_pair_thumbnails(store: PairStore, name: str) -> NDArray[np.uint8]:
    """Draw a sample of the pairs of one set."""
    count = store.counts[name]
    shown_count = min(_MOST[name], count)
    indices = np.unique(np.linspace(0, count - 1, shown_count).astype(int))
    arrays = store.get_arrays(name)
    cells = []
    for index in indices:
        ranges = store.get_ranges(name, int(index))
        pair = []
        for array, (low, high) in zip(arrays, ranges, strict=True):
            patch = np.asarray(array[int(index)])
            values = (patch.astype(float) - low) / max(high - low, 1e-300)
            ratio = patch.shape[0] / _THUMB
            if ratio > 1:
                values = ndimage.gaussian_filter(values, (ratio - 1) / 2)
            how = {"output_shape": (_THUMB, _THUMB), "order": 1, "mode": "nearest"}
            matrix, offset = np.diag([ratio, ratio]), (ratio - 1) / 2
            small = ndimage.affine_transform(values, matrix, offset, **how)
            pair.append(np.rint(np.clip(small, 0, 1) * _WHITE).astype(np.uint8))
        cells.append(np.pad(np.hstack(pair), ((0, _GAP), (0, _BETWEEN))))
    cells += [np.zeros_like(cells[0])] * (-len(cells) % _ACROSS)
    starts = range(0, len(cells), _ACROSS)
    return np.vstack([np.hstack(cells[n : n + _ACROSS]) for n in starts])
