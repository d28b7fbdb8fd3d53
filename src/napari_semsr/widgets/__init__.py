"""Panels: the only room that knows Qt and napari."""
