"""Names of former versions, what to use instead, and the last commit that had them."""

LAST_COMMIT = "77bd7f5d"
FORMER: dict[str, str] = {
    "particles": "semsr gaps measures particles too: diameters_nm and cut in its JSON, "
    "a row for each particle with --table, label images with --labels",
    "models check": "semsr models info shows what the card of a model records; "
    "benchmarks/check_model.py checks another model",
    "models architectures": "the page Architectures of the manual lists the networks "
    "and their options",
    "panel Particle sizes": "Gaps shows the sizes of particles too, also of labels",
    "panel Check model": "Enhance shows, below More, what the card of a model records",
    "panel Import model": "use Import in Enhance, below More",
    "panel Demonstration": "run semsr demo, or open a sample on the first page",
    "panel Degrade": "run semsr degrade",
}
"""What to use instead of a command, option, panel or part that left.

Keys are commands and actions as they are typed (``models check``), options with their
command (``error-map --scans``) and panels (``panel Batch``); values complete the
sentence "NAME is gone: …".
"""
