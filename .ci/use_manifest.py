"""Check that the plugin engine finds the installed manifest and its commands."""

import sys

import npe2


def main() -> None:
    """Discover the plugin and import every command that needs no window."""
    manager = npe2.PluginManager()
    manager.discover()
    manifest = manager.get_manifest("napari-semsr")
    if manifest is None:
        sys.exit("the plugin engine does not find napari-semsr")
    commands = manifest.contributions.commands or []
    widgets = {item.command for item in manifest.contributions.widgets or []}
    plain = [command for command in commands if command.id not in widgets]
    for command in plain:
        if ".widgets." not in str(command.python_name):
            manager.commands.get(command.id)
    print(f"manifest: {len(commands)} commands, {len(widgets)} panels")


if __name__ == "__main__":
    main()
