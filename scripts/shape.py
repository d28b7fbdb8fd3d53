"""Count the shape of the package: modules, folders, lines, circles, single importers.

Run: ``python scripts/shape.py [--source FOLDER] [--json]``. The sources are read, not
imported; only the last figures run two commands, each once and in this process, and are
left out with ``--no-run``. ``--json`` gives the lists behind the figures too.

modules
    Python files. An ``__init__.py`` that only passes names on (a docstring, imports,
    tables, ``__getattr__``) is a face and counted apart.
widest folder
    Modules side by side, sub-packages and ``__init__.py`` not counted.
source lines
    All lines of ``.py`` and ``.pyi`` files.
code lines
    Lines that a token covers which is neither comment nor docstring.
circles
    Sets of modules that import each other, over imports that happen: those within
    functions count, those for type checking do not (they count in the line after). An
    import through a face is one of the module that defines the name; for a lazy face
    its ``__init__.pyi`` says which that is, or its imports for type checking.
one importer
    Modules that exactly one other module imports, faces left out. Entries, which are
    loaded by name or from outside, are none of them; how many there would be with the
    entries stands in the line after. An entry is ``__main__`` and what pyproject.toml
    or napari.yaml names; a module whose name stands in a string; an architecture (it
    defines a value of a table of the room ``models``); a job (of ``jobs``, with a
    public function that returns a ``Job`` and that another room imports). A verb, which
    is loaded by a part of its name, is none: its panel counts as its one importer.
names on faces
    Names that all faces pass on, each once a face.
private functions, called once
    Functions with one leading underscore, in modules, classes and functions, and the
    share of them whose name stands once in their module beside their definition.
lines of tests, of benchmarks and scripts
    All lines of their ``.py`` files.
files with "dB", with overwrite
    Modules with a string that holds the unit of PSNR; modules with a function or a call
    that has `overwrite` among its arguments.
functions, values named by a participle
    Names of one word that is a past participle (`_IRREGULAR`, or it ends in -ed):
    functions and methods but properties; and variables, arguments, fields and
    properties, each once a module. ``--json`` names them.
Any
    Uses of the name in annotations and elsewhere, imports not counted.
words of the manual
    Of the committed pages below ``docs`` but ``docs/validation`` and
    ``docs/reference``, which is generated.
passes through
    Modules with a called function, in any thread, in one
    ``semsr enhance a.png -o a.ome.zarr``, with nothing measured of the model before.
    The body of a module or a class is no function, nor is a comprehension.
handed `tile`
    Functions that hand the option ``--tile`` of that run on to another, before the
    output is planned: both have it as an argument, or in one that is a mapping, parsed
    arguments or a set of options. ``--json`` names them.
opens of the input, of outputs
    Calls that open the image of that run, and those that open a file in the folder of
    the store that it makes, under whatever name, to read or to write. ``--json`` names
    the files.
passes through, stitch; call depth; parses of a frame
    The same modules in one ``semsr stitch`` of 2 x 2 frames, most functions of the
    package on one stack, and how often the frame that is parsed most often is: calls
    of a format's ``raw_image``.

``--draw SEED`` prints instead 20 names of functions, classes and fields, 20 messages
and 20 first sentences of docstrings, drawn at random: somebody who did not write them
marks each as idiomatic, odd or obscure.
"""

import argparse
import ast
import contextlib
import inspect
import io
import json
import os
import random
import re
import sys
import tempfile
import threading
import tokenize
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import FrameType

PACKAGE = "napari_semsr"
HERE = Path(__file__).resolve().parents[1] / "src"
FUNCTION = (
    0x1  # CO_OPTIMIZED: set for functions, not for the bodies of modules, classes
)
FACE_NODES = (ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign, ast.If, ast.Expr)
Functions = (ast.FunctionDef, ast.AsyncFunctionDef)
_IRREGULAR = re.compile(
    "begun|broken|brought|built|caught|chosen|done|drawn|driven|fed|felt|found|frozen|"
    "given|gone|grown|had|heard|held|hidden|kept|known|laid|learnt|lost|made|meant|met|"
    "paid|risen|said|seen|sent|shown|shut|spent|stood|struck|sunk|taken|taught|thought|"
    "thrown|told|torn|understood|undone|won|worn|written"
)
"""Participles without -ed, but for those that are nouns, verbs or sides as well."""
_NO_PARTICIPLE = {"bed", "embed", "exceed", "feed", "need", "red", "seed", "speed"}
MESSAGE = r"[A-Z][^\n]+ [^\n]+ [^\n]+[.…]"  # a sentence


@dataclass
class Module:
    """One Python file: what it defines and what it uses of others.

    `uses` and `typing_uses` hold dotted names as written, aliases expanded.
    """

    name: str
    path: Path
    tree: ast.Module = field(repr=False)

    @property
    def room(self) -> str:
        """First folder below the package, or its own name."""
        return [*self.name.split("."), ""][1]

    @property
    def is_package(self) -> bool:
        """Whether it is the ``__init__.py`` of a folder."""
        return self.path.name == "__init__.py"

    @cached_property
    def is_face(self) -> bool:
        """Whether it only passes names on."""
        return self.is_package and all(
            isinstance(node, FACE_NODES)
            or (isinstance(node, Functions) and node.name.startswith("__"))
            for node in self.tree.body
        )

    @cached_property
    def gives_job(self) -> bool:
        """Whether a public function says that it returns a job."""
        return any(
            isinstance(node, Functions)
            and not node.name.startswith("_")
            and node.returns is not None
            and ast.unparse(node.returns).strip("'").startswith("Job[")
            for node in self.tree.body
        )

    def imported(self, *, typing: bool) -> dict[str, str]:
        """Local names of what it imports, with their dotted names."""
        names: dict[str, str] = {}
        for node in walk(self.tree, typing=typing):
            if isinstance(node, ast.Import):
                for item in node.names:
                    top = item.asname is None and "." in item.name
                    local = item.name if top else item.asname or item.name
                    names[local] = item.name
            elif isinstance(node, ast.ImportFrom):
                base = absolute(self, node)
                names |= {i.asname or i.name: f"{base}.{i.name}" for i in node.names}
        return {k: v for k, v in names.items() if v.split(".")[0] == PACKAGE}

    def uses(self, *, typing: bool) -> set[str]:
        """Dotted names of all that it takes from the package."""
        names = self.imported(typing=typing)
        found = set(names.values())
        for node in ast.walk(self.tree):
            words = dotted(node)
            for cut in range(len(words) - 1, 0, -1):
                if (local := ".".join(words[:cut])) in names:
                    found.add(".".join([names[local], *words[cut:]]))
        return found


def walk(node: ast.AST, *, typing: bool) -> Iterator[ast.AST]:
    """Walk a tree, with or without what stands there for type checking alone."""
    for child in ast.iter_child_nodes(node):
        if (
            not typing
            and isinstance(child, ast.If)
            and "TYPE_CHECKING" in ast.unparse(child.test)
        ):
            for other in child.orelse:
                yield other
                yield from walk(other, typing=typing)
        else:
            yield child
            yield from walk(child, typing=typing)


def absolute(module: Module, node: ast.ImportFrom) -> str:
    """Name of the module that an import names, relative ones resolved."""
    if not node.level:
        return node.module or ""
    up = node.level - module.is_package
    parts = module.name.split(".")[: len(module.name.split(".")) - up]
    return ".".join([*parts, *([node.module] if node.module else [])])


def dotted(node: ast.AST) -> list[str]:
    """Words of ``a.b.c``; empty for any other expression."""
    words: list[str] = []
    while isinstance(node, ast.Attribute):
        words.insert(0, node.attr)
        node = node.value
    return [node.id, *words] if isinstance(node, ast.Name) and words else []


class Package:
    """All modules of a source folder, and who uses what."""

    def __init__(self, source: Path) -> None:
        self.source = source
        self.root = source / PACKAGE
        self.modules: dict[str, Module] = {}
        for path in sorted(self.root.rglob("*.py")):
            words = path.relative_to(source).with_suffix("").parts
            name = ".".join(words[:-1] if words[-1] == "__init__" else words)
            self.modules[name] = Module(name, path, parse(path))
        self.faces = {m.name: self._face(m) for m in self.modules.values() if m.is_face}
        self.counted = {
            name: module for name, module in self.modules.items() if not module.is_face
        }

    def _face(self, module: Module) -> dict[str, str]:
        """List what a face passes on: dotted names by the names it gives them."""
        stub = module.path.with_suffix(".pyi")
        shown = (
            Module(module.name, module.path, parse(stub)) if stub.exists() else module
        )
        return shown.imported(typing=True)

    def locate(self, name: str) -> tuple[str, str]:
        """Find the module that defines a name, and what it calls it, or ``""``."""
        here, *words = name.split(".")
        followed = set()
        while words:
            word = words.pop(0)
            passed_on = self.faces.get(here, {}).get(word)
            if passed_on and (here, word) not in followed:
                followed.add((here, word))
                here, *words = [*passed_on.split("."), *words]
            elif f"{here}.{word}" in self.modules:
                here = f"{here}.{word}"
            else:
                return here, word
        return here, ""

    def edges(self, *, typing: bool) -> dict[str, set[str]]:
        """Modules that each module imports, faces looked through."""
        return {
            name: {
                to
                for used in module.uses(typing=typing)
                if (to := self.locate(used)[0]) in self.counted and to != name
            }
            for name, module in self.counted.items()
        }

    def entries(self, edges: dict[str, set[str]]) -> dict[str, str]:
        """Modules that are loaded by name or from outside, and why."""
        found = {name: "main" for name in self.counted if name.endswith(".__main__")}
        outside = [self.root / "napari.yaml", self.source.parent / "pyproject.toml"]
        for path in filter(Path.exists, outside):
            for word in re.findall(rf"{PACKAGE}[.\w]*(?=:\w)", path.read_text()):
                found.setdefault(word, path.name)
        for name, module in self.counted.items():
            for word in strings(module.tree):
                found.setdefault(word, "string")
            if module.room == "models":
                for value in table_values(module.tree):
                    full = module.imported(typing=False).get(value, "")
                    found.setdefault(self.locate(full)[0] if full else name, "table")
            others = {n for n, to in edges.items() if name in to}
            if (
                module.room == "jobs"
                and module.gives_job
                and any(self.counted[n].room != module.room for n in others)
            ):
                found.setdefault(name, "job")
        return {name: why for name, why in found.items() if name in self.counted}


def parse(path: Path) -> ast.Module:
    """Read a file as a tree."""
    return ast.parse(path.read_text(encoding="utf-8"))


def strings(tree: ast.Module) -> set[str]:
    """Strings that are the dotted name of a module of the package, or of a part."""
    constants = (
        node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)
    )
    pattern = re.compile(rf"({PACKAGE}(?:\.\w+)+)(?::\w+)?")
    return {
        match[1]
        for value in constants
        if isinstance(value, str) and (match := pattern.fullmatch(value))
    }


def table_values(tree: ast.Module) -> set[str]:
    """Names that are values of a module's tables."""
    tables = (
        node.value for node in tree.body if isinstance(node, ast.Assign | ast.AnnAssign)
    )
    return {
        value.id
        for table in tables
        if isinstance(table, ast.Dict)
        for value in table.values
        if isinstance(value, ast.Name)
    }


def circles(edges: dict[str, set[str]]) -> list[list[str]]:
    """Find sets of modules each of which reaches every other."""
    reach: dict[str, set[str]] = {}
    for start in edges:
        seen: set[str] = set()
        todo = [start]
        while todo:
            for to in edges.get(todo.pop(), set()) - seen:
                seen.add(to)
                todo.append(to)
        reach[start] = seen
    found = {
        tuple(sorted(other for other in reach[name] if name in reach[other]))
        for name in reach
        if name in reach[name]
    }
    return [list(circle) for circle in sorted(found)]


def code_lines(path: Path) -> int:
    """Lines of a file that hold more than comments and docstrings."""
    docstrings = {
        (node.body[0].lineno, node.body[0].col_offset)
        for node in ast.walk(parse(path))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
        and isinstance(node.body[0].value, ast.Constant)
        and isinstance(node.body[0].value.value, str)
    }
    blank = (
        tokenize.COMMENT,
        tokenize.NL,
        tokenize.NEWLINE,
        tokenize.INDENT,
        tokenize.DEDENT,
        tokenize.ENCODING,
        tokenize.ENDMARKER,
    )
    lines: set[int] = set()
    with path.open("rb") as file:
        for token in tokenize.tokenize(file.readline):
            if token.type not in blank and token.start not in docstrings:
                lines.update(range(token.start[0], token.end[0] + 1))
    return len(lines)


def private_functions(module: Module) -> tuple[int, int]:
    """Count private functions of a module, and those whose name is used once in it."""
    names = [
        node.name
        for node in ast.walk(module.tree)
        if isinstance(node, Functions) and re.match(r"_[a-z]", node.name)
    ]
    used = Counter(
        node.attr if isinstance(node, ast.Attribute) else node.id
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Attribute | ast.Name)
    )
    return len(names), sum(used[name] == 1 for name in names)


def is_participle(name: str) -> bool:
    """Whether a name is one past participle, leading underscores apart."""
    word = name.strip("_").lower()
    return _IRREGULAR.fullmatch(word) is not None or (
        re.fullmatch("[a-z]+ed", word) is not None and word not in _NO_PARTICIPLE
    )


def participles(module: Module) -> tuple[set[str], set[str]]:
    """Find the functions and the values of a module that a participle alone names."""
    functions, values = set(), set()
    for node in ast.walk(module.tree):
        if isinstance(node, Functions):
            marks = {ast.unparse(mark).split(".")[-1] for mark in node.decorator_list}
            is_value = bool(marks & {"property", "cached_property"})
            (values if is_value else functions).add(node.name)
        elif isinstance(node, ast.arg):
            values.add(node.arg)
        elif isinstance(node, ast.Name | ast.Attribute) and isinstance(
            node.ctx, ast.Store
        ):
            values.add(node.id if isinstance(node, ast.Name) else node.attr)
    return set(filter(is_participle, functions)), set(filter(is_participle, values))


def draw(source: Path, seed: int, count: int = 20) -> Iterator[str]:
    """Draw names, messages and sentences that somebody else reads."""
    names, messages, sentences = set(), set(), set()
    for module in Package(source).counted.values():
        for node in ast.walk(module.tree):
            if isinstance(node, (*Functions, ast.ClassDef)):
                names.add(f"{node.name}   ({module.name.partition('.')[2]})")
                lines = (ast.get_docstring(node) or "").partition("\n")[0]
                if lines:
                    sentences.add(lines)
            elif isinstance(node, ast.JoinedStr):
                text = ast.unparse(node)[2:-1]
                if re.match(r"\S+ \S+ \S+ \S+", text):
                    messages.add(text)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                messages.update(re.findall(rf"\A{MESSAGE}\Z", node.value))
    dice = random.Random(seed)  # noqa: S311 - no secret
    for kind in (names, messages - sentences, sentences):
        yield from dice.sample(sorted(kind), count)


def any_uses(module: Module) -> int:
    """Count where a module says that anything will do."""
    return sum(
        isinstance(node, ast.Name) and node.id == "Any"
        for node in ast.walk(module.tree)
    )


def says_decibel(module: Module) -> bool:
    """Whether a module writes the unit of PSNR."""
    return any(
        isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and re.search(r"\bdB\b", node.value)
        for node in ast.walk(module.tree)
    )


def hands_on(module: Module, name: str) -> bool:
    """Whether a name is an argument of a function or of a call of a module."""
    return any(
        isinstance(node, ast.arg | ast.keyword) and node.arg == name
        for node in ast.walk(module.tree)
    )


def lines_below(*folders: Path) -> int:
    """Count the lines of Python files."""
    files = (path for folder in folders for path in folder.rglob("*.py"))
    return sum(len(path.read_text("utf-8").splitlines()) for path in files)


def beside(root: Path) -> dict[str, int | float]:
    """Figures of what stands beside the sources."""
    docs = root / "docs"
    apart = {"reference", "_build"}
    pages = [p for p in docs.rglob("*.md") if not apart & {*p.relative_to(docs).parts}]
    words = {page: len(page.read_text("utf-8").split()) for page in pages}
    record = sum(count for page, count in words.items() if "validation" in page.parts)
    return {
        "lines of tests": lines_below(root / "tests"),
        "  of benchmarks, scripts": lines_below(root / "benchmarks", root / "scripts"),
        "words of the manual": sum(words.values()) - record,
        "  of the record": record,
    }


@contextlib.contextmanager
def counting_opens(folder: Path) -> Iterator[Counter[str]]:
    """Count how often each file below a folder is opened."""
    opened: Counter[str] = Counter()
    on = True  # an audit hook cannot be taken off again

    def note(event: str, arguments: tuple[object, ...]) -> None:
        # without a mode: by `os.open`, which an opener calls for one that is counted
        named = event == "open" and isinstance(arguments[0], str)
        if on and named and arguments[1] is not None:
            path = Path(arguments[0])
            if path.is_relative_to(folder):
                opened[path.relative_to(folder).as_posix()] += 1

    sys.addaudithook(note)
    try:
        yield opened
    finally:
        on = False


@dataclass
class Ran:
    """What one command did: modules with a called function, files opened, parsed."""

    modules: list[str]
    opened: Counter[str]  # by their names from the folder of the run
    parsed: Counter[str]
    stack: list[str]  # most functions of the package at once, the last called first
    handed: list[str]  # functions that hand `TILE` on before the output is planned


TILE = 112  # an option whose way is followed; no other value of the run


def holds_tile(value: object) -> bool:
    """Whether an argument is the tile size, or has it among its values by name."""
    if isinstance(value, argparse.Namespace) or hasattr(value, "model_dump"):
        value = vars(value)
    if isinstance(value, dict):
        return any(map(holds_tile, [value.get("tile"), value.get("options")]))
    return isinstance(value, int | str) and str(value) == str(TILE)


def is_handed_tile(frame: FrameType) -> bool:
    """Whether a function has the tile size in an argument."""
    code = frame.f_code
    count = code.co_argcount + code.co_kwonlyargcount
    count += bool(code.co_flags & inspect.CO_VARARGS)
    count += bool(code.co_flags & inspect.CO_VARKEYWORDS)
    return any(holds_tile(frame.f_locals.get(n)) for n in code.co_varnames[:count])


def enhance_once(source: Path) -> Ran:
    """Enhance ``a.png``, a small image, to a store in the folder ``made``."""
    import numpy as np
    from PIL import Image

    image = np.random.default_rng(0).integers(60, 190, (160, 192), dtype=np.uint8)
    with tempfile.TemporaryDirectory() as work:
        Image.fromarray(image).save(Path(work, "a.png"))
        Path(work, "made").mkdir()
        words = ["enhance", "a.png", "-o", "made/a.ome.zarr", "--pixel-size-nm", "10"]
        words += ["--tile", str(TILE)]
        return run_once(source, Path(work), words)


def stitch_once(source: Path) -> Ran:
    """Stitch four small frames of a drawn sample."""
    import numpy as np
    from PIL import Image
    from scipy import ndimage

    side, step = 160, 140
    grain = np.random.default_rng(0).normal(size=(side + step, side + step))
    grain = ndimage.gaussian_filter(grain, 1.5)
    sample = (128 + 40 * grain / grain.std()).clip(0, 255).astype(np.uint8)
    with tempfile.TemporaryDirectory() as work:
        Path(work, "scan").mkdir()
        for number in range(4):
            y, x = (step * place for place in divmod(number, 2))
            frame = Image.fromarray(sample[y : y + side, x : x + side])
            frame.save(Path(work, "scan", f"{number}.png"))
        words = ["stitch", "scan", "-o", "m.ome.zarr", "--grid", "2x2"]
        words += ["--overlap", "0.125", "--pixel-size-nm", "10"]
        return run_once(source, Path(work), words)


class Watch:
    """Profile of one run: what is called, and how deep; what is handed the tile."""

    def __init__(self, folder: str) -> None:
        self.folder = folder  # of the package
        self.called: set[str] = set()  # files
        self.parsed: Counter[str] = Counter()
        self.deepest: list[str] = []
        self.handed: dict[str, None] = {}
        self.is_planned = False

    def is_ours(self, frame: FrameType) -> bool:
        """Whether a frame is of a function of the package; comprehensions are none."""
        code = frame.f_code
        return code.co_filename.startswith(self.folder) and (
            code.co_flags & FUNCTION != 0
            and (code.co_name[0] != "<" or code.co_name == "<lambda>")
        )

    def note(self, frame: FrameType, event: str, _argument: object) -> None:
        """Note a call; the profiler calls this."""
        if event != "call" or not self.is_ours(frame):
            return
        code, stack = frame.f_code, [frame]
        self.called.add(code.co_filename)
        if code.co_name == "raw_image":
            self.parsed[frame.f_locals["path"].name] += 1
        while back := stack[-1].f_back:
            stack.append(back)
        ours = list(filter(self.is_ours, stack))
        if len(ours) > len(self.deepest):
            self.deepest = [one.f_code.co_qualname for one in ours]
        self.is_planned |= code.co_name == "plan_output"
        if not self.is_planned and all(map(is_handed_tile, ours[:2])) and ours[1:]:
            self.handed[ours[1].f_code.co_qualname] = None


def run_once(source: Path, work: Path, words: list[str]) -> Ran:
    """Run a command in a folder, and count what it does there."""
    sys.path.insert(0, str(source.resolve()))
    watch = Watch(f"{source.resolve() / PACKAGE}/")
    os.environ["SEMSR_CACHE"] = str(work / "cache")
    from napari_semsr.__main__ import main

    where = [str(work / word) if (work / word).exists() else word for word in words]
    where[3] = str(work / words[3])  # the output
    threading.setprofile(watch.note)
    sys.setprofile(watch.note)
    try:
        with (
            contextlib.redirect_stdout(io.StringIO()),
            counting_opens(work) as opened,
        ):
            code = main([*where, "--quiet"])
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    if code != 0:
        sys.exit(f"`semsr {words[0]}` failed, see above.")
    if not watch.called:
        sys.exit(f"napari_semsr was not imported from {source}.")
    found = sorted(path[len(watch.folder) :] for path in watch.called)
    return Ran(found, opened, watch.parsed, watch.deepest, [*watch.handed])


def measure(source: Path) -> tuple[dict[str, int | float], dict[str, object]]:
    """Figures of a source folder that need no run, and the lists behind them."""
    package = Package(source)
    real, checked = package.edges(typing=False), package.edges(typing=True)
    importers = Counter(to for uses in real.values() for to in uses)
    single = sorted(name for name, count in importers.items() if count == 1)
    entries = package.entries(real)
    folders = Counter(
        m.path.parent for m in package.counted.values() if not m.is_package
    )
    widest, width = folders.most_common(1)[0]
    files = [*package.root.rglob("*.py"), *package.root.rglob("*.pyi")]
    left = [name for name in single if name not in entries]
    figures: dict[str, int | float] = {
        "modules": len(package.counted),
        "faces": len(package.faces),
        "widest folder": width,
        "source lines": sum(len(p.read_text("utf-8").splitlines()) for p in files),
        "code lines": sum(code_lines(path) for path in files),
        "circles": len(circles(real)),
        "  with type checking": len(circles(checked)),
        "one importer": len(left),
        "  with entries": len(single),
        "no importer, no entry": len(set(package.counted) - {*importers, *entries}),
    }
    modules = package.counted.values()
    private, once = map(sum, zip(*map(private_functions, modules), strict=True))
    words = {name: participles(module) for name, module in package.counted.items()}
    figures |= {
        "names on faces": sum(map(len, package.faces.values())),
        "private functions": private,
        "  called once, %": round(100 * once / max(private, 1), 1),
        'files with "dB"': sum(map(says_decibel, modules)),
        "  with overwrite": sum(hands_on(module, "overwrite") for module in modules),
        "participles: functions": sum(
            len(functions) for functions, _ in words.values()
        ),
        "  values": sum(len(values) for _, values in words.values()),
        "Any": sum(map(any_uses, modules)),
        **beside(source.resolve().parent),
    }
    used_by = defaultdict(list)
    for name, uses in real.items():
        for to in uses:
            used_by[to].append(name)
    lists: dict[str, object] = {
        "folders": {
            str(folder.relative_to(source)): count
            for folder, count in folders.most_common()
        },
        "widest": str(widest.relative_to(source)),
        "circles": circles(real),
        "circles with type checking": circles(checked),
        "participles": {
            name: [sorted(kind) for kind in pair]
            for name, pair in words.items()
            if any(pair)
        },
        "one importer": {name: used_by[name][0] for name in left},
        "entries": dict(sorted(entries.items())),
        "no importer, no entry": sorted(set(package.counted) - {*importers, *entries}),
    }
    return figures, lists


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--source", type=Path, default=HERE, help="folder src")
    parser.add_argument("--json", action="store_true", help="figures and lists as JSON")
    parser.add_argument("--no-run", action="store_true", help="run no command")
    parser.add_argument("--draw", type=int, metavar="SEED", help="words to be read")
    asked = parser.parse_args()
    if asked.draw is not None:
        for number, line in enumerate(draw(asked.source, asked.draw), 1):
            print(f"{number:2d}  {line}")
        return
    figures, lists = measure(asked.source)
    if not asked.no_run:
        ran, joined = enhance_once(asked.source), stitch_once(asked.source)
        lists["passes through"] = ran.modules
        lists["passes through, stitch"] = joined.modules
        opened = ran.opened
        made = [count for name, count in opened.items() if name.startswith("made/")]
        lists["handed `tile`"] = ran.handed
        lists["call depth, stitch"] = joined.stack
        lists["opened"] = dict(sorted(opened.items()))
        lists["opened, stitch"] = dict(sorted(joined.opened.items()))
        figures |= {
            "passes through": len(ran.modules),
            "opens of the input": opened["a.png"],
            "  of outputs": sum(made),
            "handed `tile`": len(ran.handed),
            "passes through, stitch": len(joined.modules),
            "  call depth": len(joined.stack),
            "  parses of a frame": max(joined.parsed.values()),
        }
    if asked.json:
        print(json.dumps({"figures": figures, "lists": lists}, indent=1))
        return
    for name, value in figures.items():
        print(f"{name:24}{value:>10}")


if __name__ == "__main__":
    main()
