"""Print what tests ran of each room: shares of lines and of branches.

Run: ``python scripts/room_coverage.py FILE [--least 15]``, FILE being what ``coverage
json`` wrote. A branch is a way that a condition or a loop may go; those that no test
took are counted against all there are, not mixed with lines. The modules with most
branches that were not taken follow.
"""

import argparse
import json
from collections import defaultdict
from pathlib import Path

PACKAGE = "napari_semsr/"
COUNTS = ("covered_lines", "num_statements", "covered_branches", "num_branches")


def read_counts(file: Path) -> dict[str, list[int]]:
    """Give lines and branches, run and in all, of each module."""
    modules = json.loads(file.read_text())["files"]
    return {
        name.replace("\\", "/").split(PACKAGE, 1)[1]: [
            about["summary"][key] for key in COUNTS
        ]
        for name, about in modules.items()
    }


def sum_rooms(modules: dict[str, list[int]]) -> dict[str, list[int]]:
    """Add up the modules of each room, those beside the rooms, and all."""
    rooms: dict[str, list[int]] = defaultdict(lambda: [0] * len(COUNTS))
    for path, counts in modules.items():
        room = path.split("/")[0] if "/" in path else "(top)"
        for name in (room, "all"):
            rooms[name] = [a + b for a, b in zip(rooms[name], counts, strict=True)]
    return dict(sorted(rooms.items(), key=lambda item: (item[0] == "all", item[0])))


def share(run: int, count: int) -> str:
    """Write a share in per cent; of nothing all was run."""
    return f"{100 * run / count if count else 100:6.1f} %"


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--least", type=int, default=15)
    options = parser.parse_args()
    modules = read_counts(options.file)
    print(f"{'room':16s}{'lines':>7s}{'run':>9s}{'branches':>10s}{'taken':>9s}")
    for name, (run, lines, taken, branches) in sum_rooms(modules).items():
        row = f"{name:16s}{lines:7d} {share(run, lines)}"
        print(f"{row}{branches:10d} {share(taken, branches)}")
    print(f"\n{'not taken':>9s} of branches, module")
    for name in sorted(modules, key=lambda key: modules[key][2] - modules[key][3])[
        : options.least
    ]:
        print(
            f"{modules[name][3] - modules[name][2]:9d} {modules[name][3]:11d}  {name}"
        )


if __name__ == "__main__":
    main()
