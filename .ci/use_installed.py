"""Use the installed package the way a user does: commands, then readers."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import tifffile


def semsr(*arguments: object) -> dict:
    """Run a command with ``--json`` and return what it says."""
    line = ["semsr", *map(str, arguments), "--json"]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(line)} ended with {done.returncode}:\n{done.stderr}")
    return json.loads(done.stdout)


def main() -> None:
    """Write a small image, describe it, enhance it, and read the result."""
    import napari_semsr

    package = Path(napari_semsr.__file__).parent
    if Path(sys.argv[1]) in package.parents:
        sys.exit(f"the checkout was imported, not the wheel: {package}")
    for name in ("napari.yaml", "py.typed", "docs/index.md"):
        if not (package / name).is_file():
            sys.exit(f"the wheel lacks {name}")
    if not list((package / "weights").glob("*.safetensors")):
        sys.exit("the wheel lacks the weights of its models")

    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (96, 130), dtype=np.uint8)
    tifffile.imwrite("small.tif", image)

    found = semsr("info", "small.tif")
    if tuple(found["shape"]) != image.shape or found["pixel_size_nm"] is not None:
        sys.exit(f"semsr info misread the image: {found}")
    if not semsr("models", "list"):
        sys.exit("semsr models list names no model")
    report = semsr(
        "enhance", "small.tif", "-o", "better.ome.zarr", "--pixel-size-nm", 5
    )
    print("enhance:", {k: report[k] for k in ("tiles", "seconds", "model")})

    from napari_semsr.io.project import get_reader

    for name in ("small.tif", "better.ome.zarr"):
        reader = get_reader(name)
        if reader is None:
            sys.exit(f"no reader accepts {name}")
        data, attributes, kind = reader(name)[0]
        level = data[0] if isinstance(data, list | tuple) else data
        if kind != "image" or tuple(level.shape[-2:]) != image.shape:
            sys.exit(f"{name} was read as {kind} of shape {level.shape}")
        print("read:", name, attributes.get("scale"), attributes.get("units"))


if __name__ == "__main__":
    main()
