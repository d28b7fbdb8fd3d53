"""Live preview: enhance a small box at the pointer until the job is closed."""

import os
import threading
from collections import deque

from napari_semsr import inference, models
from napari_semsr.core import Box, Job, Progress, RealArray
from napari_semsr.jobs.images import Image, open_image
from napari_semsr.models import DEFAULT_MODEL, find_model

_PATIENCE_S = 0.1  # seconds between checks for a request; chosen: responsive
Answer = tuple[Box, RealArray]


class PreviewChannel:
    """Channel for preview requests and results that keeps only the latest."""

    def __init__(self) -> None:
        self._wishes: deque[Box] = deque(maxlen=1)
        self._answers: deque[Answer] = deque(maxlen=1)
        self._request = threading.Event()
        self.blur_px: float | None = None  # measured by the model

    def request_box(self, box: Box) -> None:
        """Request a box, replacing an older request."""
        self._wishes.append(box)
        self._request.set()

    def take_result(self) -> Answer | None:
        """Return and remove the latest result, if any."""
        return self._answers.pop() if self._answers else None

    def wait_for_request(self) -> Box | None:
        """Wait briefly for a request; return None if there is none."""
        self._request.wait(_PATIENCE_S)
        self._request.clear()
        return self._wishes.pop() if self._wishes else None

    def put_result(self, answer: Answer) -> None:
        """Store the pixels of a box."""
        self._answers.append(answer)


def run_preview(
    image: Image,
    desk: PreviewChannel,
    *,
    model: str | os.PathLike[str] = DEFAULT_MODEL,
    options: inference.EnhanceOptions | None = None,
) -> Job[None]:
    """Enhance the requested boxes until the job is closed."""
    yield Progress(0, 0, "preparing the preview")
    path = find_model(model)
    source = open_image(image)
    boxes = inference.prepare_preview(source, models.load_model(path), options)
    desk.blur_px = boxes.blur_px
    title = "preview" if boxes.exact else "preview (with the statistics of the box)"
    while True:
        wish = desk.wait_for_request()
        if wish is not None:
            desk.put_result(boxes.enhance(wish))
        yield Progress(0, 0, title)
