"""Panels: the only room that knows Qt and napari."""

from napari_semsr.widgets.host import check_napari

check_napari()  # whatever of the plugin is asked for: panels, readers, commands
