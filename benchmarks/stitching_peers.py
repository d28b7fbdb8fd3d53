"""Peers on one scan, each in its own time. Runs in the peers' environment.

Run: ``python benchmarks/stitching_peers.py SCAN.npz NAME`` with ``frames``,
``nominal``, ``cells`` and ``overlap`` in the file and NAME one of multiview-stitcher,
ashlar, m2stitch; prints one JSON object with
``seconds``, ``cpu_seconds`` and ``positions``.
"""

import contextlib
import json
import sys
import time
import warnings

import numpy as np


def multiview_stitcher(frames, nominal, cells):
    """Positions by multiview-stitcher at full resolution."""
    from multiview_stitcher import (
        msi_utils,
        registration,
        spatial_image_utils as si_utils,
    )

    msims = []
    for frame, (y, x) in zip(frames, nominal, strict=True):
        sim = si_utils.get_sim_from_array(
            frame,
            dims=["y", "x"],
            scale={"y": 1.0, "x": 1.0},
            translation={"y": float(y), "x": float(x)},
            transform_key="stage",
        )
        msims.append(msi_utils.get_msim_from_sim(sim, scale_factors=[]))
    registration.register(
        msims,
        transform_key="stage",
        new_transform_key="registered",
        reg_channel_index=0,
        registration_binning={"y": 1, "x": 1},
    )
    places = []
    for msim, corner in zip(msims, nominal, strict=True):
        affine = msi_utils.get_transform_from_msim(msim, transform_key="registered")
        matrix = np.asarray(affine).squeeze()
        places.append(matrix[:2, :2] @ corner + matrix[:2, 2])
    return np.array(places)


def ashlar(frames, nominal, cells):
    """Positions by ASHLAR's edge aligner."""
    from ashlar import reg

    class Metadata(reg.Metadata):
        _num_images = len(frames)
        num_channels = 1
        pixel_size = 1.0
        pixel_dtype = frames.dtype

        @property
        def num_images(self):
            return len(frames)

        def tile_position(self, i):
            return nominal[i]

        def tile_size(self, i):
            return np.array(frames.shape[1:])

    class Reader(reg.Reader):
        def __init__(self):
            self.metadata = Metadata()
            self.path = "scan"

        def read(self, series, c):
            return frames[series]

    aligner = reg.EdgeAligner(Reader(), max_shift=15, verbose=False)
    aligner.run()
    return np.asarray(aligner.positions)


def m2stitch(frames, nominal, cells):
    """Positions by m2stitch."""
    import m2stitch as library

    table, _ = library.stitch_images(
        frames,
        rows=cells[:, 0].tolist(),
        cols=cells[:, 1].tolist(),
        row_col_transpose=False,
        ncc_threshold=0.1,
    )
    return table[["y_pos", "x_pos"]].to_numpy(dtype=float)


PEERS = {
    "multiview-stitcher": multiview_stitcher,
    "ashlar": ashlar,
    "m2stitch": m2stitch,
}


def main() -> None:
    """Run one peer on one scan."""
    warnings.simplefilter("ignore")
    scan = np.load(sys.argv[1])
    frames, nominal, cells = scan["frames"], scan["nominal"], scan["cells"]
    with contextlib.redirect_stdout(sys.stderr):
        if sys.argv[2] == "multiview-stitcher":
            # what is compiled at the first call is not counted
            multiview_stitcher(frames[:2], nominal[:2], cells[:2])
        start, start_cpu = time.perf_counter(), time.process_time()
        try:
            places = PEERS[sys.argv[2]](frames, nominal, cells)
            result = {"positions": np.asarray(places).tolist()}
        except Exception as error:  # noqa: BLE001 - a peer may refuse in any way
            result = {"error": f"{type(error).__name__}: {error}"[:200]}
        result["seconds"] = time.perf_counter() - start
        result["cpu_seconds"] = time.process_time() - start_cpu
    print(json.dumps(result))


if __name__ == "__main__":
    main()
