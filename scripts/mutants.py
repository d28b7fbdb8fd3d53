"""Change one thing of a package at random, and see whether its tests notice.

Run: ``python -m scripts.mutants [--count 100] [--seed 0] [--packages core analysis]
[--log FILE] [--again]``. All places of these packages where the code may be changed are
found, and as many as were asked for are drawn before anything runs: places evenly,
without repetition, then one of the changes that the place allows. Each change is made
alone, in a copy of the checkout, where the quick tests of its package run
(``tests/core``, ``tests/analysis``) until one fails: those of them that run a line of
the change, the module's own first, and whole files where a fixture or many of their
tests run it; where that line runs at the import or by no test of this process, those
that run any line of the module. A change is killed by a
test that fails, an import that fails, or by taking twice the processor time that all
tests of the unchanged package take while their lines are counted.

Printed are the share that was killed with its standard error, and what survived as
diffs. Each result is a line of ``build/mutants/PACKAGES-SEED.jsonl`` (``--log``): a run
that was stopped goes on from there, and ``--again`` repeats what survived, with the
tests as they are now. ``--list`` prints the drawn changes alone.

What may be changed, one at a time:

arithmetic
    ``+`` and ``-``, ``*`` and ``/``, ``&`` and ``|``, ``<<`` and ``>>`` for each other;
    ``//`` and ``%`` to ``/`` and ``//``, ``**`` and ``@`` to ``*``; with ``=`` too.
comparison
    ``<`` to ``<=`` or ``>=`` and so on; ``==`` to ``!=``, ``in`` to ``not in``, ``is``
    to ``is not``, and back.
boolean
    ``and`` for ``or``; ``not``, ``-`` and ``~`` left out; the condition of an ``if``, a
    ``while``, an ``assert`` or a comprehension negated, where the line above does not.
constant
    A number to one more or one less; ``True`` for ``False``.
return
    ``None`` in place of what is returned.
jump
    ``break`` for ``continue``.

Texts, f-strings, annotations, decorators, docstrings and what is for type checking
alone stay as they are.
"""

import argparse
import ast
import contextlib
import difflib
import hashlib
import importlib.metadata
import json
import math
import os
import random
import re
import resource
import signal
import subprocess
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import coverage
import pytest
from scripts.hard_test import ROOT, copy_checkout

SOURCE = "src/napari_semsr"
PACKAGES = ("core", "analysis")
LIBRARIES = (
    *("dask.array", "distributed", "hypothesis", "matplotlib.figure", "pydantic"),
    *("scipy.ndimage", "scipy.optimize", "scipy.stats"),
    *("skimage.measure", "skimage.registration", "tifffile", "torch", "zarr"),
)
MANY = 20  # tests of a file, from which all of it runs; chosen
PATIENCE = 2  # times what all tests of the unchanged package take
MEMORY = 12 * 2**30  # bytes that the tests may address, since a change may ask for all

ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Div,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.MatMult: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitOr,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
}
COMPARISON: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
Changes = Iterator[tuple[ast.AST, str, list[ast.AST]]]
"""Parts of a node that may be changed, the kind of change, and what may be there."""


@dataclass(frozen=True, order=True)
class Place:
    """A part of a source (bytes `start` to `end`) and what may stand in its place."""

    path: str
    start: int
    end: int
    kind: str
    choices: tuple[str, ...]


@dataclass(frozen=True)
class Covered:
    """Which tests run which lines of a package, and how long they may take."""

    limit_s: float
    tests: dict[str, dict[int, set[str]]]
    seconds: dict[str, float]  # of each test and of each file

    def find_tests(self, mutant: "Mutant", source: bytes) -> set[str]:
        """Find the tests that run a place, all if it runs at the import.

        A whole file is listed if a fixture, or many of its tests, run the line.
        """
        known = self.tests.get(mutant.path, {})
        lines = find_lines(mutant, source) or known
        found = set().union(*(known.get(line, ()) for line in lines)) - {""}
        # a line that none runs may run in a process that a test starts
        found = found or set().union(*known.values()) - {""}
        many = Counter(name.split("::")[0] for name in found)
        files = {name for name, count in many.items() if count > MANY} | found & set(
            many
        )
        return files | {name for name in found if name.split("::")[0] not in files}


@dataclass(frozen=True)
class Result:
    """What became of a mutant, by which test, and the processor time that it took."""

    outcome: str
    by: str
    seconds: float


@dataclass(frozen=True)
class Mutant:
    """One change of one source."""

    path: str
    start: int
    end: int
    kind: str
    text: str

    def applied(self, source: bytes) -> bytes:
        """Make the change."""
        return source[: self.start] + self.text.encode() + source[self.end :]

    def diff(self, source: bytes) -> str:
        """Show the change with a line around it."""
        sides = [
            text.decode().splitlines(keepends=True)
            for text in (source, self.applied(source))
        ]
        return "".join(difflib.unified_diff(*sides, self.path, self.path, n=1))


def swap(node: ast.AST, name: str, value: object) -> ast.AST:
    """Copy a node with one field changed."""
    fields = {key: getattr(node, key, None) for key in node._fields}
    return type(node)(**(fields | {name: value}))


def of_arithmetic(node: ast.BinOp | ast.AugAssign) -> Changes:
    """Offer the other operator."""
    yield node, "arithmetic", [swap(node, "op", ARITHMETIC[type(node.op)]())]


def of_comparison(node: ast.Compare) -> Changes:
    """Offer for each comparison of a chain what includes or turns it round."""
    for at, op in enumerate(node.ops):
        chains = (
            [*node.ops[:at], other(), *node.ops[at + 1 :]]
            for other in COMPARISON[type(op)]
        )
        yield node, "comparison", [swap(node, "ops", chain) for chain in chains]


def of_joint(node: ast.BoolOp) -> Changes:
    """Offer ``and`` for ``or`` and back."""
    other = ast.Or() if isinstance(node.op, ast.And) else ast.And()
    yield node, "boolean", [swap(node, "op", other)]


def of_sign(node: ast.UnaryOp) -> Changes:
    """Offer what stands behind ``not``, ``-`` or ``~``."""
    if not isinstance(node.op, ast.UAdd):
        yield node, "boolean", [node.operand]


def of_condition(node: ast.If | ast.While | ast.Assert | ast.IfExp) -> Changes:
    """Negate a condition that no other change turns round."""
    test = node.test
    is_not = isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not)
    if not isinstance(test, ast.Compare) and not is_not:
        yield test, "boolean", [ast.UnaryOp(ast.Not(), test)]


def of_comprehension(node: ast.comprehension) -> Changes:
    """Negate its conditions."""
    for test in node.ifs:
        yield from of_condition(ast.If(test, [], []))


def of_constant(node: ast.Constant) -> Changes:
    """Offer the other truth and neighbouring numbers."""
    value = node.value
    if isinstance(value, bool):
        yield node, "constant", [ast.Constant(not value)]
    elif isinstance(value, int | float):
        yield node, "constant", [ast.Constant(value + 1), ast.Constant(value - 1)]


def of_return(node: ast.Return) -> Changes:
    """Offer nothing in place of something."""
    if node.value is not None and ast.unparse(node.value) != "None":
        yield node, "return", [ast.Return(ast.Constant(None))]


def of_jump(node: ast.Break | ast.Continue) -> Changes:
    """Offer the other jump."""
    yield node, "jump", [ast.Continue() if isinstance(node, ast.Break) else ast.Break()]


FINDERS: dict[type[ast.AST], Callable[..., Changes]] = {
    ast.BinOp: of_arithmetic,
    ast.AugAssign: of_arithmetic,
    ast.Compare: of_comparison,
    ast.BoolOp: of_joint,
    ast.UnaryOp: of_sign,
    ast.If: of_condition,
    ast.While: of_condition,
    ast.Assert: of_condition,
    ast.IfExp: of_condition,
    ast.comprehension: of_comprehension,
    ast.Constant: of_constant,
    ast.Return: of_return,
    ast.Break: of_jump,
    ast.Continue: of_jump,
}


def changes(node: ast.AST) -> Changes:
    """Offer what may be changed in a node itself, not in what it holds."""
    if type(node) in FINDERS:
        yield from FINDERS[type(node)](node)


def looked_at(node: ast.AST) -> Iterator[ast.AST]:
    """Go through what runs: no annotations, decorators, f-strings, type checking."""
    if isinstance(node, ast.JoinedStr):
        return
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        return
    yield node
    left_out = {"annotation", "returns", "decorator_list"}
    if isinstance(node, ast.ClassDef):
        left_out |= {"bases", "keywords"}
    for name, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            if name not in left_out and isinstance(child, ast.AST):
                yield from looked_at(child)


def written(node: ast.AST) -> str:
    """Write a node so that it may stand wherever the former one stood."""
    text = ast.unparse(ast.fix_missing_locations(node))
    simple = isinstance(node, ast.Constant | ast.Name | ast.stmt)
    return text if simple and not text.startswith("-") else f"({text})"


def find_places(path: str, source: bytes) -> list[Place]:
    """Find all places of a source that may be changed, in their order."""
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    found = set()
    for node in looked_at(ast.parse(source)):
        for part, kind, others in changes(node):
            choices = tuple(map(written, others))
            start = starts[part.lineno - 1] + part.col_offset
            end = starts[part.end_lineno - 1] + part.end_col_offset
            found.add(Place(path, start, end, kind, choices))
    return sorted(found)


def draw(sources: dict[str, bytes], count: int, seed: int) -> list[Mutant]:
    """Draw places evenly, without repetition, and a change for each."""
    rng = random.Random(seed)  # noqa: S311 - a sample
    everywhere = [
        place for path in sorted(sources) for place in find_places(path, sources[path])
    ]
    return [
        Mutant(one.path, one.start, one.end, one.kind, rng.choice(one.choices))
        for one in rng.sample(everywhere, min(count, len(everywhere)))
    ]


def read_sources(root: Path, packages: Iterable[str]) -> dict[str, bytes]:
    """Read the modules that are changed; faces hold no code."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for package in packages
        for path in (root / SOURCE / package).rglob("*.py")
        if path.name != "__init__.py"
    }


def find_lines(mutant: Mutant, source: bytes) -> range | None:
    """Give the lines of the statement that a change is in, none if the import runs it.

    Of a statement that holds others these are left out.
    """
    first = source[: mutant.start].count(b"\n") + 1
    last = source[: mutant.end].count(b"\n") + 1
    inner, in_function = None, False
    for node in ast.walk(ast.parse(source)):  # the outer before the inner
        if isinstance(node, ast.stmt) and node.lineno <= first <= node.end_lineno:
            in_function |= isinstance(inner, ast.FunctionDef)
            inner = node
    if inner is None or not in_function:
        return None
    body = getattr(inner, "body", ())
    end = body[0].lineno - 1 if body else inner.end_lineno
    return range(inner.lineno, max(end, last) + 1)


def package_of(path: str) -> str:
    """Name the package that a source belongs to."""
    return path.removeprefix(f"{SOURCE}/").split("/")[0]


def order_tests(
    path: str, covering: Iterable[str], seconds: dict[str, float]
) -> list[str]:
    """Put the tests first that bear the name of a source, then those of its folder.

    Of each, the short ones first.
    """
    *folders, name = Path(path).relative_to(SOURCE).with_suffix("").parts

    def far(test: str) -> tuple[bool, bool, float, str]:
        file = Path(test.split("::")[0])
        near = {f"test_{folder}" for folder in folders} | set(folders)
        in_folder = near & {*file.parts[2:-1], file.stem}
        is_other = file.stem != f"test_{name}"
        return is_other, not in_folder, seconds.get(test, 0.0), test

    return sorted(covering, key=far)


def become_pytest(words: list[str], copy: Path, log: Path, seconds: int | None) -> None:
    """Run pytest in this process, which was forked for it, and end with its status."""
    os.setsid()
    where = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(where, stream)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    if seconds is not None:
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
    os.chdir(copy)
    os.environ["PYTHONPATH"] = str(copy / "src")
    here = {str(ROOT), str(ROOT / "src"), ""}
    sys.path[:] = [str(copy / "src"), *(item for item in sys.path if item not in here)]
    status = 70  # as sysexits says it of software
    try:
        status = int(pytest.main(words))
    except BaseException:  # noqa: BLE001 - nothing may get back to who forked this
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def run_tests(names: Iterable[str], copy: Path, limit_s: float | None) -> Result:
    """Run tests until one fails; tell whether any did, which, and how long it took.

    They run in a fork of this process, which has the libraries, and `limit_s` is of
    processor time. What waits for ever is ended by the limit in pyproject.toml.
    """
    words = ["-x", "-q", "-m", "not slow", "-p", "no:cacheprovider"]
    words += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # they are loaded
    words += ["--tb=no", f"--basetemp={copy.parent / 'tmp'}", *names]
    if not any("tests/widgets" in name for name in words):
        words += ["-p", "no:napari"]  # which loads napari before every test
    log = copy.parent / "log"
    child = os.fork()
    if child == 0:
        become_pytest(words, copy, log, None if limit_s is None else math.ceil(limit_s))
    try:
        _, status, used = os.wait4(child, 0)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)  # what the tests have started and left
    seconds = round(used.ru_utime + used.ru_stime, 1)
    code = os.waitstatus_to_exitcode(status)
    if code == 0:  # of all that pytest says, this alone means that all passed
        return Result("survived", "", seconds)
    if code in {-signal.SIGXCPU, -signal.SIGKILL}:
        return Result("killed", "time", seconds)
    said = log.read_text(errors="replace")
    failed = re.search(r"(?m)^(?:FAILED|ERROR) (\S+)", said)
    last = (said.strip().splitlines() or [""])[-1]
    return Result("killed", failed.group(1) if failed else f"{code}: {last}", seconds)


def judge(mutant: Mutant, source: bytes, copy: Path, covered: Covered) -> Result:
    """Make the change, run the tests that run its lines, and take the change back."""
    covering = covered.find_tests(mutant, source)
    if not covering:
        return Result("survived", "", 0.0)
    target = copy / mutant.path
    target.write_bytes(mutant.applied(source))
    try:
        tests = order_tests(mutant.path, covering, covered.seconds)
        return run_tests(tests, copy, covered.limit_s)
    finally:
        target.write_bytes(source)


def make_copy(folder: Path) -> Path:
    """Copy the checkout and compile it so that a changed source is always seen.

    The usual compiled files go by time and size, which a change of one letter keeps.
    """
    copy = folder / "checkout"
    copy.mkdir()
    copy_checkout(copy)
    line = [sys.executable, "-m", "compileall", "-q"]
    line += ["--invalidation-mode", "checked-hash", str(copy / "src")]
    subprocess.run(line, check=True)
    return copy


def test_of(context: str) -> str:
    """Name the test that ran a line; its file if a shared fixture may have done so."""
    name, _, phase = context.rpartition("|")
    return name if phase == "run" else name.split("::")[0]


def cover(copy: Path, package: str) -> Covered:
    """Run the tests of the unchanged package, which must pass, and count its lines."""
    data, settings = copy.parent / "lines", copy.parent / "settings"
    settings.write_text(f"[run]\ndata_file = {data}\n")
    words = [f"--cov={copy / SOURCE / package}", f"--cov-config={settings}"]
    words += ["--cov-context=test", "--cov-report=", "--durations=0"]
    done = run_tests([*words, f"tests/{package}"], copy, None)
    log = (copy.parent / "log").read_text(errors="replace")
    if done.outcome != "survived":
        raise SystemExit(f"{log}\nThe unchanged {package} fails: {done.by}")
    found = coverage.CoverageData(str(data))
    found.read()
    tests: dict[str, dict[int, set[str]]] = {}
    for name in found.measured_files():
        path = Path(name).relative_to(copy).as_posix()
        tests[path] = {
            line: set(map(test_of, contexts))
            for line, contexts in found.contexts_by_lineno(name).items()
        }
    seconds = Counter[str]()
    for took, test in re.findall(r"(?m)^([\d.]+)s (?:call|setup) +(\S.*)$", log):
        for name in (test, test.split("::")[0]):
            seconds[name] += float(took)
    print(f"tests/{package}: {done.seconds} s unchanged", flush=True)
    return Covered(PATIENCE * done.seconds, tests, seconds)


def begin_log(log: Path, about: dict) -> dict[int, Result]:
    """Read what a former run found, if it is of the same draw."""
    if not log.exists():
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(json.dumps(about) + "\n")
        return {}
    former, *lines = map(json.loads, log.read_text().splitlines())
    if former != about:
        raise SystemExit(
            f"{log} is of another draw. Remove it, or name another with --log."
        )
    return {
        one["number"]: Result(one["outcome"], one["by"], one["seconds"])
        for one in lines
    }


def tell(mutants: list[Mutant], results: dict[int, Result], texts: list[str]) -> None:
    """Print what survived, and the share killed by package, by kind and in all."""
    left = sorted(at for at, one in results.items() if one.outcome == "survived")
    for number in left:
        print(f"\n#{number} survived ({mutants[number].kind})\n{texts[number]}")
    tried, killed = Counter[str](), Counter[str]()
    for number in results:
        one = mutants[number]
        for name in (package_of(one.path), one.kind, "all"):
            tried[name] += 1
            killed[name] += number not in left
    print()
    for name in [*sorted(tried.keys() - {"all"}), "all"]:
        share = killed[name] / max(tried[name], 1)
        error = math.sqrt(share * (1 - share) / max(tried[name], 1))
        print(
            f"{name:11s} {killed[name]:4d} of {tried[name]:4d} killed: "
            f"{100 * share:5.1f} % ± {100 * error:.1f} %"
        )
    late = sum(one.by == "time" for one in results.values())
    print(f"{late} of them by time; {len(mutants) - len(results)} did not run")


def parse(words: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--packages", nargs="+", default=PACKAGES)
    parser.add_argument("--log", type=Path)
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--list", action="store_true")
    return parser.parse_args(words)


def load_libraries() -> None:
    """Import what every run would, before it is forked off."""
    os.environ |= dict.fromkeys(
        ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"
    )
    os.environ["MPLBACKEND"] = "Agg"
    if "DISPLAY" not in os.environ:
        os.environ["QT_QPA_PLATFORM"] = "offscreen"
    os.environ.pop("PYTEST_ADDOPTS", None)
    for name in LIBRARIES:
        importlib.import_module(name)
    for plugin in importlib.metadata.entry_points(group="pytest11"):
        if plugin.name != "napari":
            plugin.load()


def main(words: list[str] | None = None) -> None:
    """Draw, run what has not run, and tell."""
    options = parse(words)
    sources = read_sources(ROOT, options.packages)
    mutants = draw(sources, options.count, options.seed)
    texts = [one.diff(sources[one.path]) for one in mutants]
    if options.list:
        print("\n".join(f"#{at}\n{text}" for at, text in enumerate(texts)))
        return
    digest = hashlib.sha256(json.dumps([asdict(one) for one in mutants]).encode())
    name = f"{'-'.join(options.packages)}-{options.seed}.jsonl"
    log = options.log or ROOT / "build/mutants" / name
    results = begin_log(log, {"seed": options.seed, "drawn": digest.hexdigest()})
    again = {"survived"} if options.again else set()
    waiting = [
        at
        for at in range(len(mutants))
        if at not in results or results[at].outcome in again
    ]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the copy is removed
    load_libraries()
    with tempfile.TemporaryDirectory(prefix="semsr-mutants-") as folder:
        copy = make_copy(Path(folder))
        packages = sorted({package_of(mutants[at].path) for at in waiting})
        covered = {name: cover(copy, name) for name in packages}
        for at in waiting:
            one, text = mutants[at], texts[at]
            done = judge(one, sources[one.path], copy, covered[package_of(one.path)])
            results[at] = done
            with log.open("a") as stream:
                line = {"number": at, **asdict(done), "diff": text}
                stream.write(json.dumps(line) + "\n")
            print(f"#{at} {one.path}: {done.outcome} {done.by}", flush=True)
    tell(mutants, results, texts)


if __name__ == "__main__":
    main()
