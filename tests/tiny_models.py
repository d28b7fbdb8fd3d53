"""Files of small random models, and recipes for them, that say what a test wants."""

from pathlib import Path
from typing import Any


def write_tiny_model(folder: Path, **card: Any) -> Path:
    """Write a model of a few thousand weights, whose card says so much besides."""
    import torch

    from napari_semsr.models.cards import ModelCard
    from napari_semsr.models.checkpoint import build_network, save_model

    options = {"width": 4, "fine_blocks": 1, "dilations": [1]}
    made = ModelCard(
        **{
            "name": "tiny",
            "architecture": "two-scale",
            "options": options,
            "stride": 4,
            "receptive_field": 24,
            **card,
        }
    )
    torch.manual_seed(3)
    network = build_network("two-scale", made.options)
    for weights in network.parameters():
        torch.nn.init.normal_(weights, std=0.05)
    path = folder / f"{made.name}.safetensors"
    save_model(path, network, made)
    return path


def write_tiny_recipe(path: Path, **changes: Any) -> Path:
    """Write a recipe that trains such a model for one step, but for some changes.

    None leaves an option out, and `data` is joined with what stands here.
    """
    import yaml

    said = {
        "name": "tiny",
        "kind": "supervised",
        "architecture": "two-scale",
        "architecture_options": {"width": 4, "fine_blocks": 1, "dilations": [1]},
        "batch": 2,
        "steps": 1,
        "warmup_steps": 0,
        "decay_steps": 0,
        "validate_every": 1,
        "precision": "fp32",
        "workers": 0,
        **changes,
        "data": {"pairs": "none.zarr", "patch_px": 16, **changes.get("data", {})},
    }
    path.write_text(yaml.safe_dump({k: v for k, v in said.items() if v is not None}))
    return path


def list_train_values(
    recipe: str | Path, folder: str | Path, *, device: str = "auto", **options: Any
) -> dict[str, Any]:
    """Return arguments of ``train`` by name."""
    from napari_semsr.jobs import TrainingEnvironment, TrainOptions, get_verb

    place = TrainingEnvironment(device=device)
    values = get_verb("train").list_values(options=TrainOptions(**options), place=place)
    return {**values, "recipe": str(recipe), "output": str(folder)}
