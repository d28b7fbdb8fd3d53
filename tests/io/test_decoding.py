"""Why a file cannot be read: refused by the system, a library missing, or damage."""

import errno
import json
import os
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile

from napari_semsr.core import Micrograph, ReadError
from napari_semsr.io import describe, files, formats as registry, read
from tests.hostile.czi import write_czi
from tests.refusals import refused

GREY = np.indices((40, 50)).sum(axis=0).astype(np.uint8)
_LOCK, _NETWORK = 33, 59  # numbers of Windows


def _raised(number, windows=None):
    error = OSError(number, os.strerror(number))
    if windows is not None:
        error.winerror = windows
    return error


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (_raised(errno.EPERM), "no-permission"),
        (_raised(errno.EACCES, _LOCK), "file-in-use"),
        (_raised(errno.EBUSY), "file-in-use"),
        (_raised(errno.ESTALE), "disk-unreachable"),
        (_raised(errno.EINVAL, _NETWORK), "disk-unreachable"),
        (_raised(errno.EMFILE), "too-many-open-files"),
        (_raised(errno.EISDIR), "not-a-file"),
        (ValueError("<Z: 50000> requires the 'imagecodecs' package"), "extra-missing"),
        (ValueError("codec not available: 'zstd'"), "extra-missing"),
        (ValueError("77777 is not a known COMPRESSION"), "format-unsupported"),
        (NotImplementedError("12 bit"), "format-unsupported"),
        (OSError("image file is truncated"), "file-damaged"),
        (_raised(errno.EINVAL), "file-damaged"),  # a seek that damage asks for
    ],
    ids=str,
)
def test_decoding_tells_what_is_wrong(tmp_path, error, code):
    path = tmp_path / "a.tif"
    with refused(ReadError, code), files.convert_decoding_errors(path, "TIFF"):
        raise error
    with refused(ReadError, code), files.convert_decoding_errors(path, "TIFF"):
        raise ValueError("block 0/0") from error


@pytest.mark.parametrize("suffix", [".tif", ".png", ".h5", ".zarr", ".czi"])
def test_what_the_system_refuses_is_not_damaged(tmp_path, monkeypatch, suffix):
    path = tmp_path / f"a{suffix}"
    if suffix == ".h5":
        with h5py.File(path, "w") as file:
            file["a"] = GREY
    elif suffix == ".czi":
        pytest.importorskip("czifile", reason="needs czifile, the extra [czi]")
        write_czi(path, [GREY])
    else:
        registry.write(Micrograph(GREY), path)
    opened = os.open

    def refuse(name, *flags, **how):
        if not str(name).startswith(str(path)) or Path(name).is_dir():
            return opened(name, *flags, **how)
        raise _raised(errno.EACCES)

    monkeypatch.setattr(os, "open", refuse)
    for call in (read, describe):
        with refused(ReadError, "no-permission"):
            call(path)


@pytest.mark.parametrize(
    ("number", "code"), [(34661, "format-unsupported"), (50000, "file-damaged")]
)
def test_a_compression_that_is_not_supported_is_no_damage(tmp_path, number, code):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, GREY, metadata=None, compression="zlib")
    with tifffile.TiffFile(path, mode="r+b") as tif:
        tif.pages[0].tags["Compression"].overwrite(number, dtype=4)
    with refused(ReadError, code):
        read(path)


def test_store_whose_codec_is_missing_says_so(tmp_path):
    registry.write(Micrograph(GREY), tmp_path / "a.ome.zarr")
    about = tmp_path / "a.ome.zarr" / "0" / "zarr.json"
    values = json.loads(about.read_text())
    values["codecs"].append({"name": "unheard", "configuration": {}})
    about.write_text(json.dumps(values))
    with refused(ReadError, "extra-missing"):
        read(tmp_path / "a.ome.zarr").array()


@pytest.mark.parametrize(
    ("name", "head", "library"),
    [
        ("a.png", b"\x89PNG\r\n\x1a\n", "imagecodecs"),
        ("a.h5", b"\x89HDF\r\n\x1a\n", "h5py"),
        ("a.czi", b"ZISRAWFILE", "czifile"),
    ],
)
def test_a_library_that_is_missing_is_named(tmp_path, monkeypatch, name, head, library):
    (tmp_path / name).write_bytes(head + bytes(64))
    monkeypatch.setitem(sys.modules, library, None)
    with refused(ReadError, "extra-missing"):
        read(tmp_path / name)
