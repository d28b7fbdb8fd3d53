"""Play cases in a process that ends by itself where an input takes all there is.

``python -m tests.hostile tiff model … --count 5000`` prints a line of JSON for each
case. An input that takes more than 5 s of processor time is a finding. One that takes
longer than ``--limit-s`` by the clock ends the process with the place where it was;
memory beyond ``--limit-gb`` is refused to it and counts as a finding. A command that
has begun to work is interrupted after three seconds, and may take any time.
"""

import argparse
import faulthandler
import json
import os
import signal
import sys
import tempfile
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

_PATIENCE_S = 3.0  # until a command is interrupted
_SHOWN = 20  # findings that are printed; the same input is made again by its number


def watch(limit_s: float, number: int) -> None:
    """End the process where the input that begins takes too long; -1 for the end."""
    faulthandler.cancel_dump_traceback_later()
    if number >= 0:
        faulthandler.dump_traceback_later(limit_s, exit=True)


def bound_memory(gigabytes: float) -> None:
    """Allow so much more memory than there is now, where the system can."""
    with suppress(ImportError):
        import resource

        import psutil

        used = psutil.Process().memory_info().data
        limit = int(used + gigabytes * 2**30)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, resource.RLIM_INFINITY))


def keep_house(folder: Path) -> None:
    """Keep what the package stores for its user in a folder of this run."""
    for name in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME"):
        os.environ[name] = str(folder)
    os.environ["SEMSR_CACHE"] = str(folder / "cache")
    os.environ["SEMSR_MODELS"] = str(folder / "models")
    os.environ["MPLBACKEND"] = "Agg"
    os.environ.pop("DISPLAY", None)


def run(name: str, chosen: argparse.Namespace) -> bool:
    """Play one case, print what became of it, and tell whether nothing was found."""
    from tests.hostile.cases import CASES, lacking, longest_of
    from tests.hostile.play import play

    sys.stderr.write(f"{name} ...\n")
    why = lacking(name)
    if why is not None:
        sys.stdout.write(json.dumps({"case": name, "skipped": why}) + "\n")
        return True
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="semsr-hostile-") as top:
        keep_house(Path(top))
        inputs = Path(top) / "inputs"
        inputs.mkdir()
        outcome = play(
            CASES[name],
            inputs,
            chosen.count,
            first=chosen.first,
            longest_s=longest_of(name),
            each=partial(watch, chosen.limit_s),
        )
        watch(chosen.limit_s, -1)
    told = {
        "case": name,
        "count": outcome.count,
        "refused": outcome.refused,
        "findings": len(outcome.findings),
        "slowest_s": round(outcome.slowest_s, 2),
        "slowest": outcome.slowest,
        "seconds": round(time.monotonic() - begun),
    }
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()
    sys.stderr.write("\n".join([*outcome.findings[:_SHOWN], ""]))
    sys.stderr.flush()
    return not outcome.findings


def main() -> int:
    """Play the cases that were named, or all; 1 if anything was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*")
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--limit-s", type=float, default=300.0)
    parser.add_argument("--limit-gb", type=float, default=2.0)
    chosen = parser.parse_args()
    import torch  # noqa: F401 - its own share of memory is none of an input's

    from tests.hostile.cases import CASES
    from tests.hostile.commands import PATIENCE

    if hasattr(signal, "setitimer"):
        PATIENCE.seconds = _PATIENCE_S
    bound_memory(chosen.limit_gb)
    clean = [run(name, chosen) for name in chosen.cases or CASES]
    return 0 if all(clean) else 1


if __name__ == "__main__":
    sys.exit(main())
