"""The set-up scripts say what is missing instead of failing on the way."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import children

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ROOT / "scripts" / "system_packages.sh"

pytestmark = [
    pytest.mark.broad,
    pytest.mark.skipif(
        shutil.which("bash") is None, reason="the set-up scripts need bash"
    ),
]


def fake(folder: Path, name: str, body: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


@pytest.fixture
def machine(tmp_path):
    """A machine whose commands are all made up: no package is installed on it."""
    fake(tmp_path, "dpkg-query", "echo not-installed")
    fake(tmp_path, "chromium", "exit 0")
    fake(tmp_path, "id", "echo 1000")
    fake(tmp_path, "sudo", "exit 1")
    (tmp_path / "python3").symlink_to(sys.executable)
    for name in ("bash", "env", "cat"):
        (tmp_path / name).symlink_to(shutil.which(name))
    return tmp_path


def run(
    machine: Path, *words: str, **variables: str
) -> subprocess.CompletedProcess[str]:
    where = {"PATH": str(machine), **variables}
    return children.run(["bash", PACKAGES, *words], env=where)


def test_packages_are_named_where_they_cannot_be_installed(machine):
    done = run(machine)
    assert done.returncode == 1
    assert "libxcb-cursor0" in done.stderr
    assert "xvfb" in done.stderr
    assert "chromium" not in done.stderr.split("Ask for", maxsplit=1)[0]


def test_packages_are_installed_by_root(machine):
    log = shlex.quote(str(machine / "log"))
    fake(machine, "id", "echo 0")
    fake(machine, "apt-get", f'echo "$@" >> {log}')
    fake(machine, "dpkg-query", f"test -e {log} && printf installed")
    done = run(machine)
    assert done.returncode == 0, done.stderr
    update, *installs = (machine / "log").read_text().splitlines()
    assert update.startswith("update")
    assert installs[0].endswith("--no-install-recommends libegl1")


def test_nothing_is_asked_for_on_request_or_on_other_systems(machine):
    assert run(machine, SEMSR_SYSTEM_PACKAGES="skip").returncode == 0
    (machine / "dpkg-query").unlink()
    done = run(machine)
    assert done.returncode == 0
    assert "OpenGL" in done.stdout


def test_environments_need_one_package_alone(machine):
    assert run(machine, "venv").returncode == 0
    log = shlex.quote(str(machine / "log"))
    there = f'case "$*" in *ensurepip*) test -e {log};; *) echo 3.12;; esac'
    (machine / "python3").unlink()
    fake(machine, "python3", there)
    done = run(machine, "venv")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "Ask for: apt-get install python3.12-venv"
    fake(machine, "id", "echo 0")
    fake(machine, "apt-get", f'echo "$@" >> {log}')
    assert run(machine, "venv").returncode == 0
    assert "libegl1" not in (machine / "log").read_text()


@pytest.mark.parametrize(
    "path",
    [ROOT / ".ci" / "run", *ROOT.glob(".ci/*.sh"), *ROOT.glob("scripts/*.sh")],
    ids=lambda path: path.name,
)
def test_script_parses_and_can_be_executed(path):
    assert os.access(path, os.X_OK)
    assert children.run(["bash", "-n", path]).returncode == 0
