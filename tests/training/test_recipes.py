"""Recipes are validated before any work."""

from pathlib import Path

import pytest

from napari_semsr.core.errors import OptionError, ReadError
from napari_semsr.training.recipe import Recipe, load_recipe
from tests.refusals import refused

BUNDLED = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("path", BUNDLED, ids=lambda p: p.stem)
def test_bundled_recipes_are_valid_and_keep_held_out_images_apart(path: Path) -> None:
    data = load_recipe(path).data
    sets = data.train, data.validation, data.held_out
    parts = [{entry.file for entry in part} for part in sets]
    assert Path(data.root).is_absolute()
    assert sum(map(len, parts)) == len(set().union(*parts))


def test_own_options_hold_over_included_ones(tmp_path: Path) -> None:
    (tmp_path / "shared.yaml").write_text("steps: 7\ndata: {root: a, phantoms: 0.5}\n")
    path = tmp_path / "r.yaml"
    former = "data_weight: 0.0\n"  # of a recipe that an earlier version wrote
    path.write_text(f"name: a\n{former}include: shared.yaml\ndata: {{phantoms: 1}}\n")
    recipe = load_recipe(path)
    assert (recipe.steps, recipe.data.phantoms) == (7, 1)
    assert recipe.data.root == str(tmp_path / "a")


@pytest.mark.parametrize(
    ("text", "code", "values"),
    [
        ("step: 3\n", "unknown-option", "'step'"),
        ("data_weight: 0.1\n", "unknown-option", "'data_weight'"),
        ("steps: 0\n", "out-of-range", "`steps` .* 0"),
        ("data: {bank: 1000000000}\n", "out-of-range", r"data\.bank .* 100000"),
        ("devices: 2\n", "unsafe-content", " devices, "),
        ("- a\n", "recipe-invalid", " list "),
        ("a: [", "recipe-invalid", "YAML"),
        ("kind: cyclegan\n", "unknown-value", "`kind` .*'cyclegan'"),
        ("betas: [2, 3]\n", "out-of-range", r"betas\[0\] .* 1, "),
        ("include: r.yaml\n", "recipe-invalid", r"r\.yaml in .*r\.yaml"),
        ("include: shared.yaml\ndata: 5\n", "recipe-invalid", "^data "),
        ("data: {sources: {images: 0}}\n", "sources-empty", "^In data"),
        ("data: {patch_px: 64, scene_px: 32}\n", "patch-size-unsuitable", "64 and 32"),
        ("architecture: same\n", "missing-value", "start_from"),
        ("gan: {kernel: {size_px: 8}}\n", "kernel-invalid", "size_px .* 8"),
        ("gan: {shares: [1, 1, 0]}\n", "out-of-range", r"shares\[2\] .* 0"),
        ("measure: frc_per_px\n", "measure-unsuitable", "cross_frc"),
        ("kind: blind-spot\n", "measure-unsuitable", "hidden_db"),
        ("learns: survey\n", "options-contradict", "`learns`"),
        ("kind: restorer\nlearns: noise\n", "options-contradict", "start_from"),
        ("gan: {conditional: true}\nkind: paired-gan", "options-contradict", "2 .* 1"),
        ("kind: restorer\ndata: {sources: {gold: 1}}", "sources-unsuitable", None),
    ],
)
def test_bad_and_missing_recipes_are_refused(tmp_path, text, code, values):
    path = tmp_path / "r.yaml"
    path.write_text(text if text[:2] in ("- ", "a:") else f"name: a\n{text}")
    (tmp_path / "shared.yaml").write_text("steps: 3\n")
    with refused((ReadError, OptionError), code, match=values):
        load_recipe(path)
    with refused(ReadError, "file-missing", match=r"none\.yaml"):
        load_recipe(tmp_path / "none.yaml")


@pytest.mark.parametrize("judge", ["./a.png", "scans/b.tif", "c.png"])
def test_what_is_learnt_from_and_judges_is_named(judge: str) -> None:
    pair = {"low": "b.tif", "high": "a.png"}
    data = {"train": [{"file": "a.png"}], "scans_root": "scans", "scans": [pair]}
    data["validation"] = [{"file": judge}]
    shared = Recipe(name="a", data=data).data.find_duplicate_files()
    assert shared == [name for name in ("a.png", "b.tif") if judge.endswith(name)]
