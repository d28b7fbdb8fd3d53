"""The papers' tables and figures that are not repeated, and why."""

from paper_tables.markdown import paragraphs, table

_HEAD = """
## What is not repeated

Tables and figures of the papers that this page has no row for. Drawings of networks and
of instruments are left out.
"""
_COLUMNS = ("paper", "what", "why not")
_PRIVATE = "the images are not public"
_SUPPLEMENT = "it is in the supplement, of which the text gives no figures"

NOT_REPEATED: tuple[tuple[str, str, str], ...] = (
    ("Gao et al.", "table 3, figure 3: real contaminated samples", _PRIVATE),
    ("Gao et al.", "table 4, figure 4: real silicon dioxide", _PRIVATE),
    ("Gao et al.", "figure 2: images of iron chloride", _PRIVATE),
    ("Gao et al.", "figure 5b: real images without an edge loss", _PRIVATE),
    (
        "Gao et al.",
        "figure 5a, table S4: weights and operators of the edge loss",
        (
            "withdrawn: seven short runs ended within the steps in which these "
            "networks only copy, where the edge term compares an image with itself"
        ),
    ),
    (
        "Sun et al.",
        "figures 3, 4 and 6: silicon wafers under the superlens",
        f"{_PRIVATE}; simulated ones stand in for them",
    ),
    (
        "Sun et al.",
        "figure 5: measured SQUIRREL maps",
        f"{_PRIVATE}; maps of 10 and 5 blocks are measured on simulated fields",
    ),
    ("Sun et al.", "table S1: PSNR and SSIM of 12 images", _SUPPLEMENT),
    (
        "de Haan et al.",
        "figures 2 to 4: registered pairs of gold on carbon",
        (
            f"{_PRIVATE}; drawn ones stand in for them, and noisy scans of real gold "
            "beside averaged ones"
        ),
    ),
    (
        "de Haan et al.",
        "3.66 images of 780 x 780 px a second on a GTX 1080 Ti",
        "a time says little on another device",
    ),
    ("Z. Wang", "figure 1: his own images under a microsphere", _PRIVATE),
)
"""Paper, what it shows, why there is no row for it."""


def not_repeated() -> str:
    """List what is not repeated."""
    return paragraphs(_HEAD, table(_COLUMNS, NOT_REPEATED, text=3))
