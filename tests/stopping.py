"""Jobs that a user stops."""

from napari_semsr.core.progress import Job


def stop_at(job: Job[object], words: str, done: int = 0) -> None:
    """Close a job at the step that says some words and has done so much."""
    for step in job:
        if words in step.message and step.done >= done:
            job.close()
            return
    msg = f"the job ended without {words!r}"
    raise AssertionError(msg)
