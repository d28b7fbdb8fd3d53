import math
from dataclasses import dataclass, field
from typing import Annotated

from napari_semsr import core


@dataclass(frozen=True)
class Inner:
    noise: Annotated[float, core.Quantity("Noise", core.LEVELS, ".2f")] = 1.25


@dataclass(frozen=True)
class Result:
    width_nm: Annotated[
        float | None,
        core.Quantity(
            "Width", "nm", also="width_px", sd="sd_nm", interval="ends_nm", large=True
        ),
    ]
    width_px: Annotated[float | None, core.Quantity("Width", "px")]
    sd_nm: float | None = None
    ends_nm: Annotated[core.FloatPair | None, core.declare_quantity("Ends", "nm")] = (
        None
    )
    pitch_nm: Annotated[core.FloatPair, core.Quantity("Pitch", "nm", shown=False)] = (
        4.0,
        5.0,
    )
    gain: Annotated[
        float | None, core.Quantity("Gain", "dB", reason="why", verdict="told")
    ] = None
    why: str | None = None
    told: str | None = None
    sure: Annotated[bool, core.Quantity("Sure")] = True
    kind: Annotated[str, core.Quantity("Kind")] = "lines"
    count: Annotated[int, core.Quantity("Count", column="n", note="of all")] = 3
    inner: Inner = field(default=Inner(), metadata=core.FLAT)

    @property
    def twice(self) -> Annotated[float, core.Quantity("Twice", form=".1f")]:
        return 2 * self.count

    span_nm, span_px = core.create_length_properties(
        lambda self, unit: self.count * 10 if unit == "px" else None, "span", "Span"
    )


def texts(result):
    return {label: str(one) for label, one in core.get_figures(result).items()}


def test_figures_have_units_errors_intervals_and_reasons():
    ends = (1200.0, 1300.0)
    full = Result(1234.5678, 12.0, 5.0, ends, gain=2.0, told="better", sure=False)
    assert texts(full) == {
        "Width": "1235 ± 5 nm (12 px) (95 %: 1200 to 1300 nm)",
        "Gain": "2 dB \N{EN DASH} better",
        "Sure": "no",
        "Kind": "lines",
        "Count": "3 of all",
        "Noise": "1.25 grey levels",
        "Twice": "6.0",
        "Span": "30 px",
    }
    assert core.get_figures(full)["Width"].large
    bare = texts(Result(None, 12.0, why="too dark"))
    assert (bare["Width"], bare["Gain"]) == ("12 px", "\N{EN DASH} (too dark)")
    assert not {"Gain", "Width"} & set(texts(Result(None, None)))


def test_columns_hold_units_and_both_of_a_pair_and_no_infinity():
    row = core.get_cells(Result(math.inf, 12.0, ends_nm=(1.0, 2.0)))
    assert core.get_columns(Result) == tuple(row)
    assert row["width_nm"] is None
    assert (row["width_px"], row["noise_grey"], row["n"]) == (12.0, 1.25, 3)
    assert (row["pitch_y_nm"], row["pitch_x_nm"]) == (4.0, 5.0)
    assert (row["span_nm"], row["span_px"], row["twice"]) == (None, 30, 6)
    ends = {"ends_nm": Annotated[core.FloatPair, core.Quantity("Ends", "nm")]}
    width = {
        "width_nm": Annotated[float, core.Quantity("Width", "nm", interval="ends_nm")]
    }
    kind = dataclass(type("Kind", (), {"__annotations__": {**width, **ends}}))
    assert core.get_columns(kind) == ("width_nm", "ends_low_nm", "ends_high_nm")


def test_a_shift_is_written_without_signs():
    assert core.format_shift((0.0, 0.0)) == "nothing"
    assert core.format_shift((1.25, -0.5)) == "1.25 px down, 0.50 px left"
    assert core.format_shift((-2.0, 0.125)) == "2.00 px up, 0.12 px right"
