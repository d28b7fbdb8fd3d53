"""Panels of the plugin; the only package that imports Qt and napari."""

from napari_semsr.widgets.host import check_napari

check_napari()  # imported for every part of the plugin: panels, readers, commands
