"""Every case by its name."""

from tests.hostile.commands import commands
from tests.hostile.documents import DOCUMENTS
from tests.hostile.images import IMAGES
from tests.hostile.play import Case

CASES: dict[str, Case] = {
    case.name: case for case in (*IMAGES, *DOCUMENTS, *commands())
}
