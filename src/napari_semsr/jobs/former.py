"""Names of former versions, what to use instead, and the last commit that had them."""

LAST_COMMIT = "77bd7f5d"
FORMER: dict[str, str] = {
    "batch": (
        "use several images with -o FOLDER (enhance, restore, degrade, convert, crop), "
        "--table for measurements, and a shell script for several steps"
    ),
    "panel Batch": "use *Apply to a folder…* in Enhance, Restore and measuring panels",
}
"""What to use instead of a command, option, panel or part that left.

Keys are commands and actions as they are typed (``models check``), options with their
command (``error-map --scans``) and panels (``panel Batch``); values complete the
sentence "NAME is gone: …".
"""
