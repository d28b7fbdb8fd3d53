"""``semsr enhance IN -o OUT``: sharpen and clean an image tile by tile."""

import argparse
import ctypes
import os
import sys
from pathlib import Path

from napari_semsr import jobs
from napari_semsr.cli.verb import (
    Verb,
    add_image,
    add_opening,
    add_options,
    add_output,
    asked,
    columns,
    number,
    options_from,
    pixel_size,
    shape,
)
from napari_semsr.core import Job


def _configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    from napari_semsr.inference import ClusterOptions, EnhanceOptions

    add_image(parser, "image", "the image to enhance")
    add_output(parser, "where the result goes; its suffix names the format")
    group = parser.add_argument_group("model and running")
    group.add_argument(
        "--model",
        default=jobs.DEFAULT_MODEL,
        metavar="NAME|FILE",
        help="model on the shelf, or a .safetensors file "
        f"(default: {jobs.DEFAULT_MODEL})",
    )
    group.add_argument(
        "--resume", action="store_true", help="go on with an interrupted output"
    )
    group.add_argument(
        "--misfit",
        metavar="FILE",
        help="write a map of what the result, blurred again, does not explain of the "
        "image",
    )
    add_options(parser, ClusterOptions, title="cluster")
    add_options(parser, EnhanceOptions, title="tiles")
    group.add_argument(
        "--no-resample",
        dest="resample",
        action="store_const",
        const="never",
        default=argparse.SUPPRESS,
        help="run the model at the field's own pixel size, as --resample never does",
    )
    add_opening(parser)


def _start(arguments: argparse.Namespace) -> Job["jobs.EnhancedFile"]:
    """Make the job."""
    from napari_semsr.inference import ClusterOptions, EnhanceOptions

    return jobs.enhance_job(
        arguments.image,
        arguments.output,
        model=arguments.model,
        **asked(arguments, EnhanceOptions),
        resume=arguments.resume,
        scheduler=options_from(arguments, ClusterOptions).scheduler,
        misfit=arguments.misfit,
    )


def _summarise(result: "jobs.EnhancedFile") -> str:
    """Say what was written and what it cost."""
    report = result.report
    size = pixel_size(result.pixel_size_nm)
    what = f"{shape(result.shape)}, {result.dtype}, pixel {size}"
    speed = f"{number(report.megapixels_per_second)} megapixel/s"
    rows = [
        ("output", f"{result.output} ({what})"),
        ("model", f"{report.model}, norm {report.norm}"),
        ("device", f"{report.device}, {report.precision}"),
        ("time", f"{number(report.seconds)} s, {report.tiles} tiles, {speed}"),
        ("memory", f"{number(report.peak_memory_mb)} MB at its peak"),
        ("tile mismatch", number(report.tile_mismatch)),
        ("seam index", report.seam),
    ]
    if result.change is not None:
        rows.append(("change", result.change.say("model")))
    if result.misfit is not None:
        percent = f"{number(100 * result.misfit.share)} %"
        share = 100 * result.misfit.TRUE_SHARE
        true = f"true SEM images of superlens fields leave {share:.0f} %"
        said = f"{percent} of the input's contrast is not explained by the result"
        rows.append(("misfit", f"{said} ({true})"))
    if result.misfit_map is not None:
        rows.append(("misfit map", result.misfit_map))
    if report.noise_percent is not None:
        noise = f"{number(report.noise_percent)} % of the range of grey values"
        rows.append(("noise", f"{noise}, standard deviation"))
    if report.blur_px is not None:
        rows.append(("blur", f"{number(report.blur_px)} px, standard deviation"))
    if report.haze_gain is not None:
        least, most = (number(gain) for gain in report.haze_gain)
        rows.append(("haze", f"contrast raised by {least} to {most} across the field"))
    if report.clipped:
        rows.append(("clipped", f"{report.clipped} pixels by {result.dtype}"))
    rows += [("note", note) for note in report.notes]
    return columns(rows)


# Keep the memory of the command small, at no cost in time.
#
# glibc gives each thread an arena of its own, and what a thread has freed there does
# not serve another. Threads that compute, compress and write tiles in turn thus keep
# several times what they use at once. And between the maps of a network, which come and
# go, lie small objects that stay, so that the freed space is in pieces. Here all
# threads share one arena, and blocks of 4 MB and more come from the system and return
# to it. Fetching such a block anew for each layer would cost a fifth of the time in
# page faults, were it not for huge pages, which torch asks for when it is told to.

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # names in malloc.h
_LARGE, _KEPT = 4 << 20, 96 << 20
_HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_TORCH_ASKS = "THP_MEM_ALLOC_ENABLE"


def compact_memory() -> bool:
    """Set the allocator of this process; call it before torch is imported.

    Nothing is done where the user has set the allocator by ``MALLOC_...`` or
    ``GLIBC_TUNABLES``, or where the C library is not glibc.
    """
    chosen = any(name.startswith("MALLOC_") for name in os.environ)
    chosen |= "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "")
    if chosen or not sys.platform.startswith("linux"):
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return False
    library.mallopt(_ARENA_MAX, 1)
    if _has_huge_pages():
        os.environ.setdefault(_TORCH_ASKS, "1")
        library.mallopt(_MMAP_THRESHOLD, _LARGE)
        library.mallopt(_TRIM_THRESHOLD, _KEPT)
    return True


def _has_huge_pages() -> bool:
    """Whether the system gives huge pages to those who ask."""
    try:
        return "[never]" not in _HUGE_PAGES.read_text("utf-8")
    except OSError:
        return False


ENHANCE = Verb(_configure, _start, _summarise, prepare=compact_memory)
