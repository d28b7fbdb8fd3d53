"""Verbs that share a panel with others, as commands of the palette that open it."""

from napari import current_viewer

from napari_semsr.widgets.base import open_panel


def cut_pairs() -> None:
    """Open the panel that cuts pairs of two layers."""
    _open("Train")


def describe_image() -> None:
    """Open the panel that says what a file is."""
    _open("Open mosaic")


def convert_image() -> None:
    """Open the panel that saves a layer in another format."""
    _open("Save and project")


def save_figure() -> None:
    """Open the panel that saves a figure for a paper."""
    _open("Save and project")


def replay_result() -> None:
    """Open the panel that makes a saved result again and compares."""
    _open("Save and project")


def save_report() -> None:
    """Open the panel that writes a report on the images that are shown."""
    _open("Save and project")


def measure_decorrelation() -> None:
    """Open the panel that tells the cut-off of an image by itself."""
    _open("FRC map")


def compare_scans() -> None:
    """Open the panel that tells how repeatable two scans of one place are."""
    _open("Error map")


def list_models() -> None:
    """Open the panel that lists the models and shows their cards."""
    _open("Enhance")


def map_trust() -> None:
    """Open the panel that maps how far what it makes may be off."""
    _open("Enhance")


def _open(panel: str) -> None:
    viewer = current_viewer()
    if viewer is not None:
        open_panel(viewer, panel)
