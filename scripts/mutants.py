"""Change one thing in core or analysis at random, and see whether its tests notice.

Run: ``python -m scripts.mutants [--count 100] [--seed 0] [--log FILE] [--again]``. All
places of both packages where the code may be changed are found, and as many as were
asked for are drawn before anything runs: places evenly, without repetition, then one of
the changes that the place allows. Each change is made alone, in a copy of the checkout,
where the quick tests of its package run (``tests/core``, ``tests/analysis``; the file's
own tests first) until one fails. A change is killed by a test that fails, an import
that fails, or by running four times as long as the tests of the unchanged package.

Printed are the share that was killed with its standard error, and what survived as
diffs. Each result is a line of ``build/mutants/seed-N.jsonl`` (``--log``): a run that
was stopped goes on from there, and ``--again`` repeats what survived, with the tests as
they are now. ``--list`` prints the drawn changes alone.

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
import difflib
import hashlib
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
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from scripts.hard_test import ROOT, copy_checkout

SOURCE = "src/napari_semsr"
PACKAGES = ("core", "analysis")
PATIENCE = 4  # times what the unchanged package takes; others may use the machine too
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


def read_sources(root: Path) -> dict[str, bytes]:
    """Read the modules that are changed; faces hold no code."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for package in PACKAGES
        for path in (root / SOURCE / package).rglob("*.py")
        if path.name != "__init__.py"
    }


def package_of(path: str) -> str:
    """Name the package that a source belongs to."""
    return path.removeprefix(f"{SOURCE}/").split("/")[0]


def order_tests(path: str, root: Path) -> list[str]:
    """Name the tests of a source: those that bear its name, its folder's, the others'.

    What is named twice runs once, where it is named first.
    """
    parts = Path(path.removeprefix(f"{SOURCE}/")).with_suffix("").parts
    tests = root / "tests" / parts[0]
    folders = parts[1:-1]
    own = sorted(tests.rglob(f"test_{parts[-1]}.py"))
    near = [tests / name for name in folders]
    near += [tests / f"test_{name}.py" for name in folders]
    found = [*own, *(item for item in near if item.exists()), tests]
    return [item.relative_to(root).as_posix() for item in dict.fromkeys(found)]


def run_tests(names: Iterable[str], copy: Path, limit_s: float | None) -> dict:
    """Run tests until one fails; tell whether any did, which, and how long it took."""
    line = [sys.executable, "-m", "pytest", "-x", "-q", "-n", "0", "-m", "not slow"]
    line += ["-p", "no:cacheprovider", "--tb=no", f"--basetemp={copy.parent / 'tmp'}"]
    environment = os.environ | {"PYTHONPATH": str(copy / "src"), "OMP_NUM_THREADS": "1"}
    environment.pop("PYTEST_ADDOPTS", None)
    begun = time.monotonic()
    with subprocess.Popen(
        [*line, *names],
        cwd=copy,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY)),
    ) as process:
        try:
            said, ended = process.communicate(timeout=limit_s)[0], True
        except subprocess.TimeoutExpired:
            said, ended = "", False
        finally:
            stop(process)
    seconds = round(time.monotonic() - begun, 1)
    if not ended:
        return {"outcome": "killed", "by": "time", "seconds": seconds}
    if process.returncode == 0:
        return {"outcome": "survived", "by": "", "seconds": seconds}
    failed = re.search(r"(?m)^(?:FAILED|ERROR) (\S+)", said)
    by = failed.group(1) if failed else said.strip().splitlines()[-1][:200]
    return {"outcome": "killed", "by": by, "seconds": seconds}


def stop(process: subprocess.Popen) -> None:
    """End the tests and whatever they started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait()


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


def measure(copy: Path, packages: Iterable[str]) -> dict[str, float]:
    """Run the tests of the unchanged packages, which must pass; give the seconds."""
    taken = {}
    for package in packages:
        done = run_tests([f"tests/{package}"], copy, None)
        if done["outcome"] != "survived":
            raise SystemExit(f"The unchanged {package} fails: {done['by']}")
        taken[package] = done["seconds"]
        print(f"tests/{package}: {done['seconds']} s unchanged", flush=True)
    return taken


def begin_log(log: Path, about: dict) -> dict[int, dict]:
    """Read what a former run found, if it drew from the same sources."""
    if not log.exists():
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(json.dumps(about) + "\n")
        return {}
    former, *results = map(json.loads, log.read_text().splitlines())
    if former != about:
        raise SystemExit(
            f"{log} is of another draw. Remove it, or name another with --log."
        )
    return {result["number"]: result for result in results}


def tell(mutants: list[Mutant], results: dict[int, dict], texts: list[str]) -> None:
    """Print what survived, the share killed by package and kind, and in all."""
    left = [n for n in results if results[n]["outcome"] == "survived"]
    for number in sorted(left):
        print(f"\n#{number} survived ({mutants[number].kind})\n{texts[number]}")
    groups = Counter[str]()
    killed = Counter[str]()
    for number in results:
        one = mutants[number]
        for name in (package_of(one.path), one.kind, "all"):
            groups[name] += 1
            killed[name] += number not in left
    print()
    for name in (*PACKAGES, *sorted({one.kind for one in mutants}), "all"):
        count = groups[name]
        if count:
            share = killed[name] / count
            error = math.sqrt(share * (1 - share) / count)
            print(
                f"{name:11s} {killed[name]:4d} of {count:4d} killed: "
                f"{100 * share:5.1f} % ± {100 * error:.1f} %"
            )
    late = sum(result["by"] == "time" for result in results.values())
    print(f"{late} of them by time; {len(mutants) - len(results)} did not run")


def parse(words: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--log", type=Path)
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--list", action="store_true")
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> None:
    """Draw, run what has not run, and tell."""
    options = parse(words)
    sources = read_sources(ROOT)
    mutants = draw(sources, options.count, options.seed)
    texts = [one.diff(sources[one.path]) for one in mutants]
    if options.list:
        print("\n".join(f"#{at} {text}" for at, text in enumerate(texts)))
        return
    digest = hashlib.sha256(json.dumps([asdict(one) for one in mutants]).encode())
    log = options.log or ROOT / f"build/mutants/seed-{options.seed}.jsonl"
    results = begin_log(log, {"seed": options.seed, "drawn": digest.hexdigest()})
    waiting = [
        number
        for number in range(len(mutants))
        if number not in results
        or (options.again and results[number]["outcome"] == "survived")
    ]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the copy is removed
    with tempfile.TemporaryDirectory(prefix="semsr-mutants-") as folder:
        copy = make_copy(Path(folder)) if waiting else Path(folder)
        taken = measure(copy, sorted({package_of(mutants[n].path) for n in waiting}))
        for number in waiting:
            one = mutants[number]
            target = copy / one.path
            target.write_bytes(one.applied(sources[one.path]))
            limit_s = PATIENCE * taken[package_of(one.path)]
            done = run_tests(order_tests(one.path, copy), copy, limit_s)
            target.write_bytes(sources[one.path])
            results[number] = {"number": number, **done, "diff": texts[number]}
            with log.open("a") as stream:
                stream.write(json.dumps(results[number]) + "\n")
            print(f"#{number} {one.path}: {done['outcome']} {done['by']}", flush=True)
    tell(mutants, results, texts)


if __name__ == "__main__":
    main()
