"""Check that the plugin engine finds the installed manifest and reads through it."""

import sys

import npe2
from npe2.manifest.utils import import_python_name


def main() -> None:
    """Discover the plugin, import what needs no window, read a file with it."""
    manager = npe2.PluginManager.instance()
    manager.discover()
    manifest = manager.get_manifest("napari-semsr")
    commands = manifest.contributions.commands or []
    readers = {reader.command for reader in manifest.contributions.readers or []}
    for command in (item for item in commands if item.id in readers):
        if not callable(import_python_name(str(command.python_name))):
            sys.exit(f"{command.python_name} is no function")
    layers, reader = npe2.read_get_reader(
        ["better.ome.zarr"], stack=False, plugin_name="napari-semsr"
    )
    units = [str(unit) for unit in layers[0][1].get("units", ())]
    if units != ["nm", "nm"]:
        sys.exit(f"{reader.command} read the store with units {units}")
    print(
        f"manifest: {len(commands)} commands, {len(readers)} readers without a window"
    )


if __name__ == "__main__":
    main()
