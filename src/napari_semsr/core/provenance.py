"""Provenance: what made an image, written into every output."""

import hashlib
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

_PACKAGES = ("napari-semsr", "numpy", "scipy", "scikit-image", "torch", "dask", "zarr")
_BLOCK = 1 << 20  # bytes read at a time; chosen: hashing is slower than the calls


class InputRecord(BaseModel):
    """One input of a job."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: str
    name: str
    digest: str | None = None
    provenance: "Provenance | None" = None


class Provenance(BaseModel):
    """What made an image: job, options, inputs, model, versions."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    job: str
    options: dict[str, Any] = Field(default_factory=dict)
    inputs: tuple[InputRecord, ...] = ()
    model_name: str | None = None
    model_digest: str | None = None
    versions: dict[str, str] = Field(default_factory=dict)
    created: str = Field(
        default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds")
    )

    def networks(self) -> frozenset[str]:
        """Digests of every network that had a hand in this image.

        Returns
        -------
        frozenset of str
            Model digests of this step and of all steps before it.
        """
        own = {self.model_digest} if self.model_digest else set()
        for item in self.inputs:
            if item.provenance is not None:
                own |= item.provenance.networks()
        return frozenset(own)

    def sources(self) -> frozenset[str]:
        """Digests of the files at the start of this image's history.

        Returns
        -------
        frozenset of str
            Digests of inputs that have no recorded history of their own.
        """
        found: set[str] = set()
        for item in self.inputs:
            if item.provenance is not None and item.provenance.inputs:
                found |= item.provenance.sources()
            elif item.digest is not None:
                found.add(item.digest)
        return frozenset(found)


def software_versions() -> dict[str, str]:
    """Versions of the packages that shape a result.

    Returns
    -------
    dict
        Package names and versions; packages that are not installed are left out.
    """
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def digest_path(path: Path) -> str:
    """SHA-256 of a file, or of every file in a folder in name order.

    Parameters
    ----------
    path : pathlib.Path
        File or folder (an OME-Zarr store, a folder of frames).

    Returns
    -------
    str
        ``sha256:`` and the digest in hexadecimal.
    """
    digest = hashlib.sha256()
    files = (
        sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    )
    for file in files:
        if path.is_dir():
            digest.update(file.relative_to(path).as_posix().encode())
        with file.open("rb") as stream:
            while block := stream.read(_BLOCK):
                digest.update(block)
    return f"sha256:{digest.hexdigest()}"
