"""Curves of a run: a CSV file, and TensorBoard's log where that package is there."""

import csv
from pathlib import Path
from typing import Any

__all__ = ["Board", "append_row"]


def append_row(path: Path, row: dict[str, float]) -> None:
    """Add a row to a CSV file, which keeps the columns that it was begun with.

    Parameters
    ----------
    path : pathlib.Path
        The file; made with a header if it is not there.
    row : dict
        Values by column.
    """
    columns = list(row)
    new = not path.exists()
    if not new:
        with path.open(newline="", encoding="utf-8") as stream:
            columns = next(csv.reader(stream), columns)
    with path.open("a", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, columns, restval="", extrasaction="ignore")
        if new:
            writer.writeheader()
        writer.writerow({k: f"{v:.6g}" for k, v in row.items()})


class Board:
    """Curves of one run.

    Parameters
    ----------
    run_dir : pathlib.Path
        Folder of the run; holds ``curve.csv`` and, with TensorBoard, ``board/``.
    """

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self._writer: Any = None
        self._looked = False

    def add(self, row: dict[str, float]) -> None:
        """Add the figures of one step.

        Parameters
        ----------
        row : dict
            Values by name; ``step`` is one of them.
        """
        append_row(self.run_dir / "curve.csv", row)
        if not self._looked:
            self._looked, self._writer = True, _tensorboard(self.run_dir / "board")
        if self._writer is None:
            return
        for name, value in row.items():
            if name != "step":
                self._writer.add_scalar(name, value, int(row["step"]))
        self._writer.flush()

    def close(self) -> None:
        """Close TensorBoard's file."""
        if self._writer is not None:
            self._writer.close()


def _tensorboard(folder: Path) -> Any:
    """Open TensorBoard's log; None without the package."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder))
