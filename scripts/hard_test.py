"""Run the quick tests where a machine makes it hard for them.

Run: ``python scripts/hard_test.py [CONDITION[+CONDITION…] …] [-- PYTEST OPTIONS]``.
Every word is one run of the tests; conditions that are joined by ``+`` hold together.
Without a word each condition has a run of its own. Each run has a line; what pytest
said is in ``build/hard``. Ends with 1 if any run failed.

The tests run in a copy of the checkout with the packages of this interpreter. Where
that lies in a folder that another user may not enter, such as root's home, it is
mounted for that run alone (``unshare``).
"""

import argparse
import contextlib
import os
import pwd
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOGS = ROOT / "build" / "hard"
OTHER, NICE = "nobody", ["nice", "-n", "19"]
CONDITIONS = {
    "nice": "at the lowest priority",
    "busy": "while every core has other work",
    "deaf": "with signals ignored, as a shell starts what runs in the background",
    "other-user": "as a user who is not root and has no home",
    "unwritable-home": "with a home where nothing can be written",
    "odd-path": "in a path with a space and an umlaut",
    "random-order": "in another order each time",
    "odd-session": "with odd settings of language, time, terminal and libraries",
    "no-display": "without a screen",
    "decimal-comma": "where numbers have a decimal comma",
}
SESSION = [
    *("LC_ALL=C", "TZ=Asia/Kathmandu", "TERM=dumb", "COLUMNS=40", "FORCE_COLOR=1"),
    *("PYTHONWARNINGS=default", "OMP_NUM_THREADS=3", "MPLBACKEND=svg"),
    *("XDG_CACHE_HOME=/proc", "XDG_CONFIG_HOME=/proc", "XDG_DATA_HOME=/proc"),
    *("NAPARI_CONFIG=/proc/a.yaml", "SEMSR_MODELS=/proc", "SEMSR_CACHE=/proc"),
    *("LOCAL_RANK=1", "SLURM_PROCID=1"),
]


@dataclass
class Surroundings:
    """How the tests are called."""

    work: Path
    prefix: list[str] = field(default_factory=list)
    options: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    user: str = ""


def shell(script: str) -> list[str]:
    """Make words that do something in a shell before they become the next command."""
    return ["bash", "-c", f'{script} && exec "$@"', "bash"]


def closed_above(path: Path) -> Path | None:
    """Find the topmost folder of a path that others may not enter."""
    folders = reversed([path, *path.parents])
    return next((item for item in folders if not item.stat().st_mode & 1), None)


def mounts(work: Path) -> str:
    """Write what lays the interpreter and its packages open to everyone."""
    keep, cover, back = [], {}, []
    for number, prefix in enumerate({sys.base_prefix, sys.prefix}):
        closed, kept = closed_above(Path(prefix)), work / f"python-{number}"
        if closed is not None:
            here, there = shlex.quote(str(kept)), shlex.quote(prefix)
            keep.append(f"mkdir {here} && mount --bind {there} {here}")
            cover[closed] = (
                f"mount -t tmpfs -o mode=755 tmpfs {shlex.quote(str(closed))}"
            )
            back.append(f"mkdir -p {there} && mount --bind {here} {there}")
    return " && ".join([*keep, *cover.values(), *back])


def surround(names: list[str], work: Path) -> Surroundings:
    """Bring conditions about."""
    made = Surroundings(work)
    home = work / "home"
    made.environment = {"HOME": str(home), "TMPDIR": str(work / "tmp")}
    if "other-user" in names and os.geteuid() == 0:
        made.user = OTHER
        made.environment |= {"USER": OTHER, "LOGNAME": OTHER, "HOME": "/nonexistent"}
        opened = mounts(work)
        if opened:
            made.prefix += ["unshare", "--mount", *shell(opened)]
        ids = pwd.getpwnam(OTHER)
        made.prefix += ["setpriv", f"--reuid={ids.pw_uid}", f"--regid={ids.pw_gid}"]
        made.prefix += ["--clear-groups"]
    if "unwritable-home" in names:
        made.environment["HOME"] = "/proc"
    if "odd-session" in names:
        made.prefix += [*shell("umask 077"), "env", *SESSION]
    if "decimal-comma" in names:  # Qt knows it also where the system does not
        made.environment |= {"LC_ALL": "de_DE.UTF-8", "LANG": "de_DE.UTF-8"}
    if "nice" in names:
        made.prefix += NICE
    if "random-order" in names:
        seed = random.randrange(10_000)  # noqa: S311 - an order
        made.options += ["--random-order", f"--random-order-seed={seed}"]
    if "no-display" not in names:
        made.prefix += ["scripts/with_display.sh"]
    if "deaf" in names:
        made.prefix += shell("trap '' INT QUIT HUP")
    return made


def copy_checkout(folder: Path) -> None:
    """Copy what git knows and what it would take, and point to the real images."""
    line = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(line, cwd=ROOT, check=True, capture_output=True).stdout
    for name in filter(None, names.decode().split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    if (ROOT.parent / "shared").is_dir():
        (folder.parent / "shared").symlink_to(ROOT.parent / "shared")


@contextlib.contextmanager
def busy_cores(names: list[str]) -> Iterator[None]:
    """Keep every core at work, at the priority of the tests; else they would starve."""
    lower = NICE if "nice" in names else []
    line = [*lower, sys.executable, "-c", "while True: pass"]
    count = (os.cpu_count() or 1) if "busy" in names else 0
    workers = [subprocess.Popen(line) for _ in range(count)]
    try:
        yield
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()


def run(case: str, options: list[str]) -> bool:
    """Run the tests once, print a line, and tell whether they passed."""
    names = case.split("+")
    begun = time.monotonic()
    part = "Prüf stand" if "odd-path" in names else "plain"
    with tempfile.TemporaryDirectory(prefix="semsr-hard-") as top:
        work = Path(top) / part
        checkout = work / "napari-semsr"
        for folder in (checkout, work / "tmp", work / "home"):
            folder.mkdir(parents=True)
        copy_checkout(checkout)
        made = surround(names, work)
        if made.user:
            Path(top).chmod(0o755)
            ids = pwd.getpwnam(made.user)
            for path in (work, *work.rglob("*")):
                os.chown(path, ids.pw_uid, ids.pw_gid, follow_symlinks=False)
        environment = {**os.environ, **made.environment}
        environment["PYTHONPATH"] = str(checkout / "src")
        for name in ("DISPLAY", "XAUTHORITY"):
            environment.pop(name, None)
        line = [*made.prefix, sys.executable, "-m", "pytest", "-p", "no:cacheprovider"]
        line += ["-n", "2", "-m", "not slow and not broad"]
        line += [*made.options, *options]
        log = LOGS / f"{case}.log"
        with log.open("w") as stream, busy_cores(names):
            done = subprocess.run(
                line,
                cwd=checkout,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                check=False,
            )
    said = log.read_text(errors="replace")
    ends = re.findall(
        r"(?:\d+ (?:passed|failed|skipped|errors?|xfailed)(?:, )?)+", said
    )
    word = "passed" if done.returncode == 0 else "FAILED"
    what = " ".join([*made.options, ends[-1] if ends else "pytest did not end"])
    print(f"{case}: {word} in {time.monotonic() - begun:.0f} s ({what})", flush=True)
    if done.returncode:
        failures = re.findall(r"(?m)^(?:FAILED|ERROR) .*$", said)
        print("\n".join(f"  {text}" for text in failures or said.splitlines()[-10:]))
    return done.returncode == 0


def main() -> int:
    """Run the conditions that were named."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.epilog = "\n".join(f"{name:16s} {what}" for name, what in CONDITIONS.items())
    parser.add_argument("cases", nargs="*", metavar="CONDITION", default=[*CONDITIONS])
    words, options = sys.argv[1:], []
    if "--" in words:
        at = words.index("--")
        words, options = words[:at], words[at + 1 :]
    cases = parser.parse_args(words).cases
    unknown = {name for case in cases for name in case.split("+")} - CONDITIONS.keys()
    if unknown:
        parser.error(f"no such condition: {', '.join(sorted(unknown))}")
    LOGS.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # copies are removed
    passed = [run(case, options) for case in cases]
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
