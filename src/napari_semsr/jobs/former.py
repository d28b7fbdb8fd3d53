"""Names of former versions, what to use instead, and the last commit that had them."""

LAST_COMMIT = "77bd7f5d"
FORMER: dict[str, str] = {
    "models architectures": "the page Architectures of the manual lists the networks "
    "and their options",
}
"""What to use instead of a command, option, panel or part that left.

Keys are commands and actions as they are typed (``models check``), options with their
command (``error-map --scans``) and panels (``panel Batch``); values complete the
sentence "NAME is gone: …".
"""
