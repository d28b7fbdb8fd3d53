"""Run a former version and the present one on the same cases, and say what differs.

Run: ``python scripts/same_results.py FORMER [NEW] [--jobs N] [--only PATTERN]
[--cache FOLDER] [--expected FILE]``. FORMER and NEW are folders with the sources (a
checkout or its ``src``) or git revisions; NEW is this checkout if it is not given. The
cases are in `same_cases.py`. Compared are exit codes, stdout (with ``--json`` all keys
and values), the sentences on stderr, and every file that was written: pixel values bit
by bit, metadata, tables, pages, weights. Left out are times, memory, speeds, versions,
dates, lines of progress and the paths of this machine.

Each case prints ``same``, ``differs`` with what differs, or ``expected`` where all
differences are listed in the file of ``--expected``. Its lines are ``CASE | DIFFERENCE
| REASON``, the first two with the wildcards of a shell. The end status is 1 if anything
differs that is not listed. ``--cache`` keeps what the former version gave, so that it
need not run again.

Each command is run as ``python -m napari_semsr`` is, but in the fork of a process that
has imported the libraries (nothing of this package), which saves most of the time.
"""

import argparse
import base64
import contextlib
import csv
import dataclasses
import fnmatch
import gc
import hashlib
import html
import io
import json
import os
import re
import runpy
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

HERE = Path(__file__).resolve().parents[1]
LIMIT_S = 240
LIBRARIES = (
    "dask.array",
    "imagecodecs",
    "matplotlib.figure",
    "numpy",
    "PIL.Image",
    "psutil",
    "pydantic",
    "safetensors.torch",
    "scipy.fft",
    "scipy.ndimage",
    "scipy.optimize",
    "scipy.signal",
    "skimage.restoration",
    "tifffile",
    "torch",
    "yaml",
    "zarr",
)
LEFT_OUT = re.compile(
    r"seconds|minutes|megapixels_per|memory|versions|created|time|version$"
)
"""Keys that say how long, how much, when or with which versions."""
SPOILT = {
    r"\d+(\.\d+)? ?(s|min|h|MB|GB|MiB|GiB|megapixels?/s|MP/s)\b": "<amount>",
    r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?(\.\d+)?(\+\d\d:\d\d|Z)?": "<date>",
    r"\d{4}:\d\d:\d\d \d\d:\d\d:\d\d": "<date>",
    r"0x[0-9a-f]{6,}": "<address>",
}
"""The same within sentences."""
PROGRESS = re.compile(r"^\d+/\d+ ")
DIGEST = re.compile(r"\b[0-9a-f]{64}\b")


# --- the process that runs the steps of one version ---------------------------------


def serve() -> None:
    """Import the libraries, then run each step that stdin asks for in a fork."""
    for name in LIBRARIES:
        with contextlib.suppress(ImportError):
            import_module(name)
    gc.freeze()  # else each fork looks through all of the libraries, and copies them
    for line in sys.stdin:
        asked = json.loads(line)
        child = os.fork()
        if child == 0:
            run_step(asked)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def run_step(asked: dict[str, Any]) -> None:
    """Run one step in this process, and leave it."""
    os.chdir(asked["folder"])
    os.environ["HOME"] = f"{asked['folder']}/home"
    signal.alarm(LIMIT_S)
    for number, name in ((0, os.devnull), (1, asked["stdout"]), (2, asked["stderr"])):
        flags = os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        os.dup2(os.open(name, flags), number)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
    sys.path[0] = asked["folder"]
    step = asked["step"]
    if step.startswith("py:"):
        run_python(step[3:].strip(), asked["number"])
    else:
        sys.argv = ["semsr", *shlex.split(step)]
        runpy.run_module("napari_semsr", run_name="__main__", alter_sys=True)
    sys.exit(0)


def run_python(line: str, number: int) -> None:
    """Run a line of Python; after ``!`` its value is shown."""
    import napari_semsr as semsr

    warnings.simplefilter("ignore", DeprecationWarning)
    known = {"semsr": semsr, "np": np, "interrupted": interrupted}
    try:
        if line.startswith("!"):
            value = eval(line[1:], known)  # noqa: S307 - our own cases
            print(json.dumps(plain(value, f"value{number}")))
        else:
            exec(line, known)  # noqa: S102
    except semsr.SemsrError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(2)


def interrupted(function: Any, *words: Any, **options: Any) -> None:
    """Call a function and stop it after its second tile."""

    def stop(step: Any) -> None:
        if step.done >= 2:
            raise KeyboardInterrupt

    with contextlib.suppress(KeyboardInterrupt):
        function(*words, progress=stop, **options)


def plain(value: Any, name: str) -> Any:
    """Give a result as JSON; arrays go into files of their own."""
    if dataclasses.is_dataclass(value):
        value = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    elif hasattr(type(value), "model_fields"):
        value = dict(value)
    elif isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Mapping):
        return {str(k): plain(v, f"{name}.{k}") for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        items = sorted(value) if isinstance(value, set | frozenset) else value
        return [plain(item, f"{name}.{i}") for i, item in enumerate(items)]
    if hasattr(value, "__array__"):
        np.save(f"{name}.npy", np.asarray(value))
        return f"array {name}"
    if value is None or isinstance(value, bool | int | str):
        return value
    simple = isinstance(value, float | os.PathLike)
    return str(value) if simple else "an object"


class Version:
    """One version of the sources, with a process that runs its steps."""

    def __init__(self, source: Path, scratch: Path, known: set[str]) -> None:
        self.source, self.known = source, known
        environment = {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "COLUMNS": "80",
            "PYTHONPATH": f"{source}:{Path(__file__).parent}",
            "PYTHONPYCACHEPREFIX": str(scratch / "pycache"),
            "SEMSR_CACHE": str(scratch / "cache"),
            "MPLCONFIGDIR": str(scratch / "matplotlib"),
            "CUDA_VISIBLE_DEVICES": "",
            **dict.fromkeys(["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"], "1"),
        }
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--serve"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            start_new_session=True,
        )

    def run(self, folder: Path, steps: list[str], inputs: Path) -> "Seen":
        """Run the steps of a case in a new folder, and look at what they left."""
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "home").mkdir(parents=True)
        for path in inputs.iterdir():
            (folder / path.name).symlink_to(path)
        seen = Seen()
        streams = [folder.with_suffix(f".{name}") for name in ("stdout", "stderr")]
        for number, step in enumerate(steps, 1):
            asked = {
                "folder": str(folder),
                "step": step,
                "number": number,
                "stdout": str(streams[0]),
                "stderr": str(streams[1]),
            }
            assert self.process.stdin is not None  # noqa: S101 - both are pipes
            assert self.process.stdout is not None  # noqa: S101
            self.process.stdin.write(json.dumps(asked) + "\n")
            self.process.stdin.flush()
            seen.facts[f"step {number} exit code"] = int(self.process.stdout.readline())
            told, said = (path.read_text("utf-8", "replace") for path in streams)
            seen.facts[f"step {number} stdout"] = as_json(told)
            lines = [x for x in said.splitlines() if not PROGRESS.match(x)]
            seen.facts[f"step {number} stderr"] = lines
        observe(folder, seen)
        # The last holds the others; its name, drawn at random, may read as an amount.
        here = {folder: "<folder>", self.source: "<source>", inputs.parent: "<scratch>"}
        seen.facts = without(seen.facts, here, self.known)
        shutil.rmtree(folder)
        return seen

    def close(self) -> None:
        """End the process."""
        if self.process.stdin:
            self.process.stdin.close()
        self.process.wait()


# --- what a case left ----------------------------------------------------------------


@dataclasses.dataclass
class Seen:
    """What a case left: facts as JSON and arrays, each by name."""

    facts: dict[str, Any] = dataclasses.field(default_factory=dict)
    arrays: dict[str, NDArray[Any]] = dataclasses.field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Keep it in two files."""
        np.savez_compressed(path.with_suffix(".npz"), **self.arrays)
        path.with_suffix(".json").write_text(json.dumps(self.facts), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> "Seen":
        """Read it again."""
        facts = json.loads(path.with_suffix(".json").read_text("utf-8"))
        with np.load(path.with_suffix(".npz")) as arrays:
            return cls(facts, dict(arrays))


def as_json(text: str) -> Any:
    """Give text as the value of its JSON, or as lines."""
    try:
        return json.loads(text)
    except ValueError:
        return [line.rstrip() for line in text.splitlines()]


def without(value: Any, here: dict[Path, str], known: set[str]) -> Any:
    """Leave out times, versions and paths, within keys and within sentences.

    Digests stay where they are those of an input or a bundled model. Of what a case has
    written itself they differ with its date; that is compared as a file.
    """
    if isinstance(value, dict):
        kept = {k: v for k, v in value.items() if not LEFT_OUT.search(k)}
        return {k: without(v, here, known) for k, v in kept.items()}
    if isinstance(value, list):
        return [without(item, here, known) for item in value]
    if isinstance(value, str):
        for path, name in here.items():
            value = value.replace(str(path), name)
        for pattern, name in SPOILT.items():
            value = re.sub(pattern, name, value)
        for found in set(DIGEST.findall(value)) - known:
            value = value.replace(found, "<digest>")
    return value


def observe(folder: Path, seen: Seen) -> None:
    """Note all files of a folder but the inputs."""
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink() or not path.is_file():
            continue
        store = next((p for p in path.parents if (p / "zarr.json").exists()), None)
        if store and path.name != "zarr.json":
            continue  # a chunk: its array is read whole
        try:
            look_into(path, name, seen)
        except Exception as error:  # noqa: BLE001 - a file that cannot be read is a fact
            seen.facts[f"{name} cannot be read"] = f"{type(error).__name__}: {error}"


def look_into(path: Path, name: str, seen: Seen) -> None:
    """Note what one file holds."""
    suffix = path.suffix.lower()
    if path.name == "zarr.json":
        meta = json.loads(path.read_text())
        seen.facts[name] = meta
        if meta["node_type"] == "array":
            import zarr

            seen.arrays[name] = np.asarray(zarr.open_array(path.parent, mode="r")[...])
    elif suffix in (".tif", ".tiff"):
        look_into_tiff(path, name, seen)
    elif suffix == ".png":
        look_into_png(path.read_bytes(), name, seen)
    elif suffix == ".npy":
        seen.arrays[name] = np.load(path)
    elif suffix == ".safetensors":
        from safetensors.numpy import load

        data = path.read_bytes()
        size = int.from_bytes(data[:8], "little")
        head = json.loads(data[8 : 8 + size]).get("__metadata__", {})
        seen.facts[name] = {key: as_json(text) for key, text in head.items()}
        tensors = load(data)
        seen.arrays |= {f"{name} {key}": value for key, value in tensors.items()}
    elif suffix == ".csv":
        seen.facts[name] = table(path.read_text("utf-8"))
    elif suffix in (".html", ".svg"):
        look_into_page(path.read_text("utf-8"), name, seen)
    elif suffix in (".json", ".yaml", ".yml", ".txt", ".md", ".py"):
        seen.facts[name] = as_json(path.read_text("utf-8"))
    else:
        seen.facts[name] = "a file"


def look_into_tiff(path: Path, name: str, seen: Seen) -> None:
    """Note the pages of a TIFF and their tags."""
    import tifffile

    left_out = ("Offsets", "ByteCounts", "DateTime", "Software", "JPEG")
    with tifffile.TiffFile(path) as file:
        for number, page in enumerate(file.pages):
            seen.arrays[f"{name} page {number}"] = page.asarray()
            seen.facts[f"{name} page {number}"] = {
                tag.name: description(tag.value)
                for tag in page.tags  # type: ignore[union-attr]
                if not tag.name.endswith(left_out)
            }


def description(value: Any) -> Any:
    """Give the value of a tag as JSON."""
    if isinstance(value, bytes):
        return hashlib.sha256(value).hexdigest()
    if isinstance(value, str):
        value = re.sub(r'(UUID|Creator|AcquisitionDate)="[^"]*"', "", value)
        return as_json(value)
    return str(value)


def look_into_png(data: bytes, name: str, seen: Seen) -> None:
    """Note the pixels of a PNG and its words."""
    from PIL import Image

    with Image.open(io.BytesIO(data)) as image:
        seen.arrays[name] = np.asarray(image)
        seen.facts[name] = {
            str(key): as_json(value) if isinstance(value, str) else str(value)
            for key, value in sorted(image.info.items(), key=str)
        }


def table(text: str) -> list[dict[str, str]]:
    """Give the rows of a table by their columns."""
    return [
        {str(k): str(v) for k, v in row.items()}
        for row in csv.DictReader(io.StringIO(text))
    ]


def look_into_page(text: str, name: str, seen: Seen) -> None:
    """Note the words of a page and its pictures."""
    for number, picture in enumerate(re.findall(r"base64,([\w+/=]+)", text)):
        with contextlib.suppress(ValueError, OSError):
            look_into_png(base64.b64decode(picture), f"{name} picture {number}", seen)
    words = re.sub(r"(?s)<(style|script).*?</\1>", "", text)
    parts = (
        " ".join(html.unescape(part).split()) for part in re.split(r"<[^>]+>", words)
    )
    seen.facts[name] = [part for part in parts if part]


# --- comparing -----------------------------------------------------------------------


def placeless(facts: dict[str, Any]) -> Any:
    """Leave out which line of which module a warning came from."""
    return json.loads(re.sub(r"<source>/[\w/]+\.py:\d+: ", "", json.dumps(facts)))


def differences(former: Seen, new: Seen) -> list[str]:
    """Say in one line each what differs."""
    found = list(fact_differences(placeless(former.facts), placeless(new.facts), ""))
    for name in sorted({*former.arrays, *new.arrays}):
        a, b = former.arrays.get(name), new.arrays.get(name)
        if a is None or b is None:
            found.append(f"{name}: pixels are {'new' if a is None else 'gone'}")
        elif a.shape != b.shape or a.dtype != b.dtype:
            found.append(f"{name}: {a.dtype}{a.shape} became {b.dtype}{b.shape}")
        elif a.tobytes() != b.tobytes():
            wide = np.abs(np.subtract(a, b, dtype=np.float64))
            count = int(np.count_nonzero(wide))
            found.append(
                f"{name}: {count} of {a.size} values, by {np.nanmax(wide):.3g}"
            )
    return found


def fact_differences(a: Any, b: Any, where: str) -> Iterator[str]:
    """Walk two values of JSON side by side."""
    if isinstance(a, dict) and isinstance(b, dict):
        for key in sorted({*a, *b}):
            path = f"{where}.{key}".lstrip(".")
            if key not in b:
                yield f"{path}: gone, was {short(a[key])}"
            elif key not in a:
                yield f"{path}: new, {short(b[key])}"
            else:
                yield from fact_differences(a[key], b[key], path)
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for number, (one, other) in enumerate(zip(a, b, strict=True)):
            yield from fact_differences(one, other, f"{where}[{number}]")
    elif json.dumps(a) != json.dumps(b):
        yield f"{where}: {short(a)} became {short(b)}"


def short(value: Any) -> str:
    """Give a value in few words."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) < 200 else f"{text[:200]}… ({len(text)})"


def read_expected(path: Path | None) -> list[list[str]]:
    """Read the list of differences that are meant: case, difference, reason."""
    if path is None:
        return []
    lines = [line.strip() for line in path.read_text("utf-8").splitlines()]
    rows = [line.split("|") for line in lines if line and not line.startswith("#")]
    wrong = [row for row in rows if len(row) != 3 or not row[2].strip()]
    if wrong:
        sys.exit(f"Lines are CASE | DIFFERENCE | REASON, got {'|'.join(wrong[0])}.")
    return [[word.strip() for word in row] for row in rows]


# --- the run -------------------------------------------------------------------------


def digest(folder: Path) -> str:
    """Digest what a folder holds."""
    found = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        if "__pycache__" not in path.parts:
            found.update(path.relative_to(folder).as_posix().encode())
            found.update(path.read_bytes())
    return found.hexdigest()


def known_digests(inputs: Path, former: Path) -> set[str]:
    """Digest each input, file or folder, and each bundled model."""
    weights = (former / "napari_semsr" / "weights").iterdir()
    files = [p for p in [*inputs.rglob("*"), *weights] if p.is_file()]
    found = {hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    return found | {digest(path) for path in inputs.iterdir() if path.is_dir()}


@contextlib.contextmanager
def sources(asked: str, scratch: Path) -> Iterator[Path]:
    """Give the folder with the package, of a folder or a git revision."""
    for folder in (Path(asked) / "src", Path(asked)):
        if (folder / "napari_semsr").is_dir():
            yield folder.resolve()
            return
    tree = scratch / f"tree-{re.sub(r'[^0-9A-Za-z]', '-', asked)}"
    git = ["git", "-C", str(HERE), "worktree"]
    subprocess.run([*git, "add", "--detach", "-q", str(tree), asked], check=True)
    try:
        yield tree / "src"
    finally:
        subprocess.run([*git, "remove", "--force", str(tree)], check=True)


class Comparison:
    """Runs cases by both versions and prints a line for each."""

    def __init__(self, asked: argparse.Namespace, scratch: Path, former: Path) -> None:
        self.scratch = scratch
        self.inputs = scratch / "inputs"
        import_module("same_cases").make_inputs(self.inputs)
        self.known = known_digests(self.inputs, former)
        self.cache: Path | None = asked.cache
        self.expected = read_expected(asked.expected)
        self.used: set[int] = set()
        self.counts: Counter[str] = Counter()
        self.own = threading.local()
        self.versions: list[Version] = []
        self.lock = threading.Lock()

    def version(self, source: Path, side: str) -> Version:
        """Give this thread's process of a version, started when first needed."""
        if not hasattr(self.own, side):
            with self.lock:
                self.versions.append(Version(source, self.scratch / side, self.known))
                setattr(self.own, side, self.versions[-1])
        found: Version = getattr(self.own, side)
        return found

    def run(
        self, name: str, steps: list[str], former: Path, new: Path, key: str
    ) -> None:
        """Run one case and print what came of it."""
        begun = time.monotonic()
        words = re.sub(r"[^0-9A-Za-z]+", "-", name)
        folder = self.scratch / "cases" / words
        kept = hashlib.sha256(
            repr((key, digest(self.inputs), steps)).encode()
        ).hexdigest()
        path = self.cache / f"{words}-{kept[:16]}" if self.cache else None
        if path and path.with_suffix(".json").exists():
            then = Seen.load(path)
            then.facts = without(then.facts, {}, self.known)
        else:
            then = self.version(former, "former").run(folder, steps, self.inputs)
            if path:
                then.save(path)
        now = self.version(new, "new").run(folder, steps, self.inputs)
        found = differences(then, now)
        left = [one for one in found if not self.meant(name, one)]
        what = "differs" if left else "expected" if found else "same"
        lines = [f"{what:8} {name} ({time.monotonic() - begun:.1f} s)"]
        lines += [f"         {line}" for line in (left or found)[:12]]
        if len(left) > 12:
            lines.append(f"         … and {len(left) - 12} more")
        with self.lock:
            self.counts[what] += 1
            print("\n".join(lines), flush=True)

    def meant(self, name: str, difference: str) -> bool:
        """Tell whether a difference is on the list."""
        for number, (case, pattern, _) in enumerate(self.expected):
            if fnmatch.fnmatchcase(name, case) and fnmatch.fnmatchcase(
                difference, pattern
            ):
                self.used.add(number)
                return True
        return False


def main() -> int:
    """Compare two versions."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("former", help="folder of sources, or a git revision")
    parser.add_argument("new", nargs="?", default=str(HERE), help="the same")
    parser.add_argument("--jobs", type=int, default=1, help="cases at a time")
    parser.add_argument(
        "--only", default="*", help="cases whose name holds this pattern"
    )
    parser.add_argument("--cache", type=Path, help="folder for the former's results")
    parser.add_argument(
        "--expected", type=Path, help="list of differences that are meant"
    )
    parser.add_argument("--list", action="store_true", help="print the cases, run none")
    asked = parser.parse_args()
    data = HERE.parent / "shared" / "data"
    # not by what serves: it must know nothing of the package before it forks
    listed = import_module("same_cases").cases(data if data.is_dir() else None)
    chosen = {
        name: steps
        for name, steps in listed.items()
        if fnmatch.fnmatchcase(name, f"*{asked.only}*")
    }
    if asked.list:
        print(
            "\n".join(f"{name}: {'; '.join(steps)}" for name, steps in chosen.items())
        )
        return 0
    if asked.cache:
        asked.cache.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        made = stack.enter_context(tempfile.TemporaryDirectory(prefix="same-"))
        scratch = Path(made).resolve()
        former = stack.enter_context(sources(asked.former, scratch))
        new = stack.enter_context(sources(asked.new, scratch))
        comparison = Comparison(asked, scratch, former)
        key = digest(former / "napari_semsr")
        with ThreadPoolExecutor(asked.jobs) as pool:
            runs = [
                pool.submit(comparison.run, name, steps, former, new, key)
                for name, steps in chosen.items()
            ]
            for run in runs:
                run.result()
        for version in comparison.versions:
            version.close()
    unused = [r for i, r in enumerate(comparison.expected) if i not in comparison.used]
    for row in unused if asked.only == "*" else []:
        print(f"not seen: {' | '.join(row)}")
    print(", ".join(f"{count} {what}" for what, count in comparison.counts.items()))
    return int(bool(comparison.counts["differs"]))


if __name__ == "__main__":
    if sys.argv[1:] == ["--serve"]:
        serve()
    else:
        sys.exit(main())
