"""Teach the network that reads the number beside a printed scale bar.

Run: ``python scripts/teach_scale_label.py FONTS OUT.npz [--steps 4000]``.
FONTS is a folder with TrueType and OpenType files, such as /usr/share/fonts; families
that `HELD_OUT` names are only judged on. Lines are drawn by seed: lengths as bars state
them, and other words, blurred, resampled and compressed.
"""

import argparse
import io
import string
from pathlib import Path
from random import Random

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import nn

from napari_semsr.analysis.scale_label import CHARACTERS, LINE_PX, as_line

HELD_OUT = ("OpenSans", "URWGothic", "P052", "Inconsolata")
LEFT_OUT = (
    "Symbol",
    "Dingbat",
    "D050000",
    "Z003",
    "Math",
    "Thin",
    "Hairline",
    "Fallback",
)
NUMBERS = (1, 2, 3, 4, 5, 10, 20, 25, 30, 40, 50, 100, 200, 250, 300, 400, 500, 1000)
UNITS = ("nm", "\N{MICRO SIGN}m", "\N{GREEK SMALL LETTER MU}m", "um", "mm")
WORDS = string.ascii_letters + string.digits * 3 + "..:;,-=/()%x "
WIDTHS = (7, 7, 7, 1)  # columns of each kernel, after the first of pairs of them
CHANNELS = (LINE_PX, 48, 72, 72, len(CHARACTERS) + 1)
MARGIN = 6  # columns of ground that `as_line` puts before and behind
SHARE = 0.5  # of a character's width, in its middle, where it is named
Line = NDArray[np.float32]
Places = NDArray[np.float64]


def fonts(folder: Path, *, held_out: bool) -> list[Path]:
    """List fonts of upright or slanted Latin letters."""
    found = [
        path
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in (".ttf", ".otf")
        and not any(word in path.name for word in LEFT_OUT)
    ]
    return [path for path in found if path.name.startswith(HELD_OUT) == held_out]


def text_of(rng: Random) -> str:
    """Draw what is printed: a length, or anything else."""
    if rng.random() < 0.3:
        return (
            "".join(rng.choice(WORDS) for _ in range(rng.randint(1, 9))).strip() or "x"
        )
    number = rng.choice(NUMBERS) if rng.random() < 0.7 else rng.randint(0, 9999)
    kind = rng.random()
    said = str(number)
    if kind < 0.15:
        said = f"{number / rng.choice((1, 10, 100)):.{rng.randint(1, 2)}f}"
    return said + rng.choice(("", " ", " ", "  ")) + rng.choice(UNITS)


def classes(text: str) -> list[int]:
    """Give the numbers of the characters of a text; 0 of a space."""
    text = text.replace("\N{GREEK SMALL LETTER MU}", "\N{MICRO SIGN}")
    known = "".join(one if one in f"{CHARACTERS} " else "?" for one in text)
    return [CHARACTERS.find(one) + 1 for one in known]


def drawn(text: str, font: Path, rng: Random) -> tuple[Line, Places]:
    """Print a text as a microscope might, and cut it out as the reader does.

    Gives middle and half width of each character too, in px.
    """
    face = ImageFont.truetype(str(font), rng.randint(11, 46))
    left, top, right, bottom = face.getbbox(text)
    image = Image.new("L", (int(right - left) + 16, int(bottom - top) + 16), 0)
    drawing = ImageDraw.Draw(image)
    if rng.random() < 0.25:  # without grey rims, as old instruments print
        drawing.fontmode = "1"
    drawing.text((8 - left, 8 - top), text, fill=255, font=face)
    ends = np.array([face.getlength(text[:k]) for k in range(len(text) + 1)])
    places = np.stack([(ends[1:] + ends[:-1]) / 2 + 8 - left, np.diff(ends) / 2])
    if rng.random() < 0.4:
        factor = rng.uniform(0.6, 1.6)
        wished = (max(8, int(image.width * factor)), max(8, int(image.height * factor)))
        places *= wished[0] / image.width
        ways = (Image.Resampling.BILINEAR, Image.Resampling.LANCZOS)
        image = image.resize(wished, rng.choice(ways))
    if rng.random() < 0.4:
        stream = io.BytesIO()
        image.save(stream, "JPEG", quality=rng.randint(40, 95))
        image = Image.open(stream)
    grey = np.asarray(image, dtype=np.float32) / 255
    noise = np.random.default_rng(rng.getrandbits(32)).normal(0, 0.03, grey.shape)
    grey = np.clip(grey / max(0.3, float(grey.max())) + noise, 0, 1).astype(np.float32)
    ink = grey > 0.5
    rows, columns = (np.flatnonzero(ink.any(axis=axis)) for axis in (1, 0))
    if not rows.size:
        return grey, places
    places[0] -= columns[0]
    return grey[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], places


def network() -> nn.Sequential:
    """Build three convolutions along a line, and one that names characters."""
    layers: list[nn.Module] = []
    for number, width in enumerate(WIDTHS):
        before, after = CHANNELS[number : number + 2]
        layers += [nn.Conv1d(before, after, width, padding=width // 2), nn.ReLU()]
        if number == 0:
            layers.append(nn.MaxPool1d(2))
    return nn.Sequential(*layers[:-1])


def batch(
    faces: list[Path], rng: Random, count: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw lines, padded to one width, and what stands at each pair of columns."""
    lines, told = [], []
    for _ in range(count):
        text = text_of(rng)
        print_, places = drawn(text, rng.choice(faces), rng)
        line = as_line(print_, rng.randint(17, 23))
        factor = (line.shape[1] - 2 * MARGIN) / print_.shape[1]
        said = np.zeros(line.shape[1] // 2, np.int64)
        for which, middle, half in zip(classes(text), *places, strict=True):
            middle, half = (MARGIN + middle * factor) / 2, half * factor / 2
            first = max(0, round(middle - SHARE * half))
            said[first : max(first + 1, round(middle + SHARE * half) + 1)] = which
        lines.append(line)
        told.append(said)
    width = max(line.shape[1] for line in lines) // 2 * 2
    whole = np.zeros((count, LINE_PX, width), np.float32)
    names = np.zeros((count, width // 2), np.int64)
    for place, line, name, said in zip(whole, lines, names, told, strict=True):
        place[:, : line.shape[1]] = line[:, :width]
        name[: said.size] = said
    return torch.from_numpy(whole), torch.from_numpy(names)


def teach(faces: list[Path], steps: int, out: Path) -> None:
    """Teach what stands where."""
    torch.manual_seed(0)
    rng = Random(0)  # noqa: S311 - repeatable
    made = network()
    optimiser = torch.optim.AdamW(made.parameters(), lr=2e-3)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps)
    for step in range(steps):
        lines, told = batch(faces, rng, 48)
        loss = nn.functional.cross_entropy(made(lines), told)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        rates.step()
        if step % 100 == 0 or step == steps - 1:
            print(f"step {step}: {loss.item():.4f}", flush=True)
            stored = {}
            layers = [layer for layer in made if isinstance(layer, nn.Conv1d)]
            for number, layer in enumerate(layers):
                stored[f"w{number}"] = layer.weight.detach().numpy().astype(np.float16)
                stored[f"b{number}"] = layer.bias.detach().numpy().astype(np.float16)
            with out.open("wb") as stream:
                np.savez_compressed(stream, **stored)


def main() -> None:
    """Teach."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("fonts", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=4000)
    given = parser.parse_args()
    teach(fonts(given.fonts, held_out=False), given.steps, given.out)


if __name__ == "__main__":
    main()
