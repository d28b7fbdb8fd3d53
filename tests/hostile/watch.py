"""What an input does besides being read: writes elsewhere, connections, programs.

Python tells of each by an audit event, and what compiled code writes is seen by looking
at a bait, a folder beside the inputs that hostile files name.
"""

import ipaddress
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import tifffile

from napari_semsr.core import Micrograph
from tests.hostile.play import Case

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
# Where the paths of an event stand, and the folder that each is seen from.
_PLACES = {
    "os.chmod": ((0, 2),),
    "os.chown": ((0, 3),),
    "os.link": ((1, 3),),
    "os.mkdir": ((0, 2),),
    "os.remove": ((0, 1),),
    "os.rename": ((0, 2), (1, 3)),
    "os.rmdir": ((0, 1),),
    "os.symlink": ((1, 2),),
    "os.truncate": ((0, None),),
    "os.utime": ((0, 3),),
}
_ITSELF = {"os.link", "os.remove", "os.rename", "os.rmdir", "os.symlink"}
_CALLING = {
    *("socket.connect", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo"),
    *("socket.gethostbyname", "socket.gethostbyaddr", "webbrowser.open"),
    *("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.startfile"),
    *("urllib.Request", "ftplib.connect", "smtplib.connect"),
}


def _socket(address: Any) -> str | bytes:
    """Give the path of a socket of this machine, empty for one of a network."""
    return address if isinstance(address, str | bytes) else ""


def _is_loopback(address: Any) -> bool:
    host = address[0] if isinstance(address, tuple) else ""
    with suppress(ValueError):
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    return False


@dataclass
class Watch:
    """Notes what the process does that a file must not make it do."""

    target: Path = Path()  # below which anything may be written
    bait: Path = Path()  # which nothing may touch
    may_read: bool = True  # what lies in the bait, as an input that a file names
    found: list[str] = field(default_factory=list)
    _is_on: bool = False
    _is_set: bool = False
    _temporary: list[str] = field(default_factory=list)
    _within: threading.local = field(default_factory=threading.local)

    @contextmanager
    def on(self, *, may_read: bool) -> Iterator[None]:
        """Watch what is done meanwhile, in whatever thread."""
        if not self._is_set:
            sys.addaudithook(self._hear)  # for good
            self._is_set = True
        self.may_read, self.found, self._temporary = may_read, [], []
        self._is_on = True
        try:
            yield
        finally:
            self._is_on = False

    def _hear(self, event: str, args: tuple[Any, ...]) -> None:
        if not self._is_on or getattr(self._within, "hearing", False):
            return
        self._within.hearing = True
        try:
            self._judge(event, args)
        except Exception as error:  # noqa: BLE001 - the call itself would fail by it
            self.found.append(f"{event} {args!r} was not understood: {error!r}")
        finally:
            self._within.hearing = False

    def _judge(self, event: str, args: tuple[Any, ...]) -> None:
        if event == "open":
            self._judge_open(*args)
        for at, folder in _PLACES.get(event, ()):
            seen_from = None if folder is None else args[folder]
            self._judge_place(event, args[at], seen_from)
        if event in ("tempfile.mkstemp", "tempfile.mkdtemp"):
            self._temporary.append(os.path.realpath(args[0]))
        calls = event in _CALLING or event == "subprocess.Popen"
        known = event == "subprocess.Popen" and os.fspath(args[0]) == sys.executable
        # processes of one training speak through a folder of multiprocessing's own
        among = event == "socket.connect" and "/pymp-" in os.fsdecode(_socket(args[1]))
        calls = calls and not among
        listens = event == "socket.bind" and not _is_loopback(args[1])
        if (calls and not known) or listens:
            self.found.append(f"{event} {args!r}")

    def _judge_open(self, path: Any, _mode: Any, flags: int) -> None:
        if isinstance(path, int) or path is None:
            return
        if flags & _WRITING:
            self._judge_place("open", path, None)
        elif not self.may_read and _is_below(self._real(path, None), self.bait):
            self.found.append(f"read {path!r}")

    def _real(self, path: Any, folder: int | None, *, itself: bool = False) -> Path:
        """Follow links to what a path leads to, but for one that is changed itself."""
        plain = Path(os.fsdecode(path))
        if folder is not None and folder >= 0:
            plain = Path(f"/proc/self/fd/{folder}").readlink() / plain
        if itself:
            return Path(os.path.realpath(plain.parent), plain.name)
        return Path(os.path.realpath(plain))

    def _judge_place(self, event: str, path: Any, folder: int | None) -> None:
        if isinstance(path, int) or "\0" in os.fsdecode(path):
            return
        place = self._real(path, folder, itself=event in _ITSELF)
        own = (os.environ["SEMSR_CACHE"], os.environ["SEMSR_MODELS"], os.devnull)
        allowed = (self.target, *self._temporary, *own)
        compiled = "__pycache__" in place.parts  # of what is imported meanwhile
        if not compiled and not any(_is_below(place, Path(one)) for one in allowed):
            self.found.append(f"{event} {path!r}, which is {place}")


def _is_below(place: Path, top: Path) -> bool:
    return place == top or top in place.parents


WATCH = Watch()


def _look(bait: Path) -> dict[str, tuple[Any, ...]]:
    """Say what a folder holds: kinds, times and bytes."""
    return {
        str(path): (
            path.lstat().st_mode,
            path.lstat().st_mtime_ns,
            path.read_bytes() if path.is_file() else b"",
        )
        for path in bait.rglob("*")
    }


SECRET = 201  # of all pixels in the bait, and of none in the inputs


def write_bait(bait: Path) -> None:
    """Write a file of every kind, for hostile files to name."""
    from napari_semsr.io import write
    from tests.hostile.commands import write_inputs

    bait.mkdir()
    write_inputs(bait)
    image = Micrograph(np.full((40, 50), SECRET, np.uint8), (5.0, 5.0), "secret")
    for name in ("secret.tif", "secret.ome.zarr"):
        write(image, bait / name)
    with suppress(ImportError):
        import h5py

        with h5py.File(bait / "secret.h5", "w") as file:
            file["x"] = image.array()
    write_part(bait / "two.ome.tif", "two.ome.tif", first=False)
    (bait / "raw.bin").write_bytes(bytes([SECRET]) * 4096)


def write_part(path: Path, other: str | Path, *, first: bool = True) -> None:
    """Write a part of a TIFF of several files, of which the other is named."""
    uuids, names = ("urn:uuid:0001", "urn:uuid:0002"), (path.name, other)
    parts = zip(uuids, names, strict=True)
    planes = "".join(
        f'<TiffData FirstZ="{z}" IFD="0" PlaneCount="1"><UUID FileName="{name}">{uuid}'
        "</UUID></TiffData>"
        for z, (uuid, name) in enumerate(parts)
    )
    text = (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/'
        f'2016-06" UUID="{uuids[not first]}"><Image ID="Image:0"><Pixels ID="Pixels:0" '
        'DimensionOrder="XYZCT" Type="uint8" SizeX="50" SizeY="40" SizeZ="2" SizeC="1" '
        f'SizeT="1"><Channel ID="Channel:0"/>{planes}</Pixels></Image></OME>'
    )
    grey = np.full((40, 50), 7 if first else SECRET, np.uint8)
    tifffile.imwrite(path, grey, description=text, metadata=None)


@dataclass(frozen=True)
class Watched:
    """A case whose inputs are whole, and must do nothing but be read or refused."""

    case: Case
    may_read: bool = False

    @property
    def name(self) -> str:
        return f"well-formed-{self.case.name}"

    def prepare(self, folder: Path) -> Any:
        """Make the inputs, and the bait beside their folder."""
        bait, target = folder / "bait", folder / "target"
        write_bait(bait)
        target.mkdir()
        WATCH.target, WATCH.bait = target.resolve(), bait.resolve()
        with _within(target):
            return self.case.prepare(target), _look(bait)

    def attempt(self, whole: Any, folder: Path, rng: Random) -> object:
        """Give one to its reader, and watch what that does besides."""
        inner, before = whole
        try:
            with _within(folder / "target"), WATCH.on(may_read=self.may_read):
                return self.case.attempt(inner, folder / "target", rng)
        finally:
            now = _look(WATCH.bait)
            changed = [k for k in now.keys() | before if now.get(k) != before.get(k)]
            before.clear()
            before.update(now)
            assert not changed, f"changed {sorted(changed)}"
            assert not WATCH.found, WATCH.found


@contextmanager
def _within(folder: Path) -> Iterator[None]:
    """Let names without a folder, and the user's home, lead where all is watched."""
    here, home = Path.cwd(), os.environ.get("HOME", "")
    os.chdir(folder)
    os.environ["HOME"] = str(WATCH.bait)
    try:
        yield
    finally:
        os.chdir(here)
        os.environ["HOME"] = home
