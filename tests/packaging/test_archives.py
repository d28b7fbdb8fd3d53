"""The wheel and the source archive carry what they must, and nothing else."""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.children import run

pytestmark = pytest.mark.broad

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "napari_semsr"


@pytest.fixture(scope="module")
def archives(tmp_path_factory) -> Path:
    """Source archive, and the wheel that is built from it."""
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--no-isolation"]
    done = run([*build, "--outdir", folder, ROOT])
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return folder


@pytest.fixture(scope="module")
def in_wheel(archives) -> set[str]:
    (wheel,) = archives.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def in_sdist(archives) -> set[str]:
    (sdist,) = archives.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        return {name.partition("/")[2] for name in archive.getnames()}


def test_wheel_holds_modules_models_and_pages_and_nothing_else(in_wheel):
    data = ("napari.yaml", "py.typed", "demonstration/report.html")
    data += ("reporting/page.html", "reporting/page.css")
    models = [*SOURCE.glob("weights/*.safetensors")]
    assert models
    held = [*SOURCE.rglob("*.py"), *models, *(SOURCE / name for name in data)]
    assert {str(path.relative_to(SOURCE.parent)) for path in held} <= in_wheel
    docs = list(ROOT.glob("docs/**/*.md"))
    docs = [path for path in docs if not {"_build", "reference"} & {*path.parts}]
    assert len(docs) > 20
    shipped = {f"napari_semsr/docs/{path.relative_to(ROOT / 'docs')}" for path in docs}
    assert {name for name in in_wheel if "/docs/" in name} == shipped
    tops = {name.partition("/")[0] for name in in_wheel}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"napari_semsr"}


def test_wheel_is_small_enough_to_download(archives):
    (wheel,) = archives.glob("*.whl")
    assert wheel.stat().st_size <= 15e6  # the bundled models are most of it


def test_source_archive_holds_nothing_that_only_a_checkout_needs(in_sdist):
    """No data, runs, environments, caches, or models that no build asks for."""
    allowed = {
        *("src", "tests", "docs", "recipes", "benchmarks", "scripts", "changes"),
        *(".ci", ".gitignore", "CHANGELOG.md", "CITATION.cff", "CODE_OF_CONDUCT.md"),
        *("CONTRIBUTING.md", "LICENSE", "Makefile", "PKG-INFO", "README.md"),
        *("SECURITY.md", "constraints.txt", "napari.yaml", "pyproject.toml"),
    }
    assert {name.partition("/")[0] for name in in_sdist} - {""} <= allowed
    assert {"LICENSE", "README.md", "constraints.txt", "napari.yaml"} <= in_sdist
    made = ("_build/", "__pycache__", ".venv", "runs/", "docs/reference/", ".pyc")
    assert [name for name in in_sdist if any(part in name for part in made)] == []


def test_tracked_files_are_small_enough_to_clone():
    """What a stranger downloads first; weights of other trainings stay out of git."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False
    )
    if listed.returncode != 0:
        pytest.skip("not a checkout")
    files = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    assert sum(f.stat().st_size for f in files if f.is_file()) <= 28e6
