"""Run the commands of the workflows here, step by step, and list what cannot run.

``python scripts/run_workflows.py [JOB …] [--list]``: each job of `.github/workflows`
once, with the first entry of its matrix, in this checkout and its environment
(`make .venv`). Steps of GitHub's actions, and commands that install, clone or publish,
are listed with the reason; ``--list`` runs nothing. Exit code 1 if a command failed.
"""

import argparse
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
NETWORK = {
    "pip install": "installs packages",
    "git clone": "clones a repository",
    "gh release": "publishes",
    "make links": "asks other sites",
    "make .venv": "installs packages",
    "make lowest": "installs packages",
    "check_wheel.sh": "installs packages",
}
"""Parts of commands that need a network, and what for."""
EXPRESSION = re.compile(r"\$\{\{\s*(.+?)\s*\}\}")


def first_of(matrix: dict[str, Any]) -> dict[str, str]:
    """Take the first entry of a job's matrix."""
    if "include" in matrix:
        return dict(matrix["include"][0])
    return {name: str(values[0]) for name, values in matrix.items()}


def filled(text: str, matrix: dict[str, str]) -> str:
    """Put the matrix into a text; an expression of GitHub's own is empty."""
    return EXPRESSION.sub(
        lambda found: matrix.get(found[1].removeprefix("matrix."), ""), text
    )


def commands(step: dict[str, Any]) -> str | None:
    """Give what a step runs in a shell; None of an action that runs nothing of ours."""
    if "run" in step:
        return str(step["run"])
    if inner := (step.get("with") or {}).get("run"):
        return f"scripts/with_display.sh {inner}"
    return None


def steps(chosen: list[str]) -> Iterator[tuple[str, str, str, dict[str, str]]]:
    """List job, title, commands, if there are any, and variables of each step."""
    for path in sorted((ROOT / ".github" / "workflows").glob("*.yml")):
        workflow = yaml.safe_load(path.read_text("utf-8"))
        for name, job in workflow["jobs"].items():
            if chosen and name not in chosen:
                continue
            matrix = first_of(job.get("strategy", {}).get("matrix", {}))
            if "uses" in job:
                yield name, f"all of {job['uses']}", "", {}
            for step in job.get("steps", ()):
                title = step.get("name") or step.get("uses") or "commands"
                text = commands(step)
                env = {
                    key: filled(str(value), matrix)
                    for key, value in (step.get("env") or {}).items()
                }
                yield name, title, "" if text is None else filled(text, matrix), env


def why_not(title: str, text: str) -> str:
    """Say why a step does not run here; "" if it does."""
    if not text:
        return "an action of GitHub, or a workflow that is listed itself"
    needs = {what for part, what in NETWORK.items() if part in text}
    if "for Windows" in title:
        return "for Windows"
    return f"needs a network: {', '.join(sorted(needs))}" if needs else ""


def main() -> int:
    """Run or list them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("jobs", nargs="*", help="of the workflows; else all")
    parser.add_argument("--list", action="store_true", help="run nothing")
    given = parser.parse_args()
    binaries = f"{ROOT / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"
    here = {"PATH": binaries, "GITHUB_REF_NAME": "v0.1.0", "CI": "true"}
    failed = 0
    for job, title, text, env in steps(given.jobs):
        if reason := why_not(title, text):
            print(f"{job}: {title}: not run ({reason})", flush=True)
            continue
        if given.list:
            print(f"{job}: {title}: {' && '.join(text.strip().splitlines())}")
            continue
        began = time.monotonic()
        call = ["bash", "-eo", "pipefail", "-c", text]
        code = subprocess.run(
            call, cwd=ROOT, env={**os.environ, **here, **env}, check=False
        ).returncode
        failed += code != 0
        end = "passed" if code == 0 else f"FAILED ({code})"
        print(f"{job}: {title}: {end} in {time.monotonic() - began:.0f} s", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
