"""Why a file cannot be read: refused by the system, a library missing, or damage."""

import errno
import json
import os
import struct
import sys
from pathlib import Path

import h5py
import imagecodecs
import numpy as np
import pytest
import tifffile
import zarr

from napari_semsr.core import Micrograph, ReadError
from napari_semsr.io import describe, files, formats as registry, read
from tests.refusals import refused

GREY = np.indices((40, 50)).sum(axis=0).astype(np.uint8)
_SHARING, _LOCK, _NETWORK = 32, 33, 59  # numbers of Windows


def _raised(number, windows=None):
    error = OSError(number, os.strerror(number))
    if windows is not None:
        error.winerror = windows
    return error


@pytest.mark.parametrize(
    ("error", "code", "detail"),
    [
        (_raised(errno.EACCES), "no-permission", None),
        (_raised(errno.EPERM), "no-permission", None),
        (_raised(errno.EACCES, _SHARING), "file-in-use", None),
        (_raised(errno.EACCES, _LOCK), "file-in-use", None),
        (_raised(errno.EAGAIN), "file-in-use", None),
        (_raised(errno.EBUSY), "file-in-use", None),
        (_raised(errno.EIO), "disk-unreachable", None),
        (_raised(errno.ESTALE), "disk-unreachable", None),
        (_raised(errno.ETIMEDOUT), "disk-unreachable", None),
        (_raised(errno.EINVAL, _NETWORK), "disk-unreachable", None),
        (_raised(errno.EMFILE), "too-many-open-files", None),
        (_raised(errno.ENOENT), "file-missing", None),
        (_raised(errno.EISDIR), "not-a-file", None),
        (ImportError("no zstd"), "extra-missing", "no zstd"),
        (
            ModuleNotFoundError("No module named 'imagecodecs'"),
            "extra-missing",
            "'imagecodecs'",
        ),
        (
            ValueError("<COMPRESSION.ZSTD: 50000> requires the 'imagecodecs' package"),
            "extra-missing",
            "50000, ZSTD, .* 'imagecodecs'",
        ),
        (ValueError("codec not available: 'zstd'"), "extra-missing", "'zstd'"),
        (ValueError("77777 is not a known COMPRESSION"), "format-unsupported", "77777"),
        (NotImplementedError("12 bit"), "format-unsupported", "12 bit"),
        (ValueError("out of bounds"), "file-damaged", None),
        (OSError("image file is truncated"), "file-damaged", None),
        # a seek that damage asks for
        (_raised(errno.EINVAL), "file-damaged", None),
    ],
)
def test_decoding_tells_what_is_wrong(tmp_path, error, code, detail):
    path = tmp_path / "a.tif"
    with (
        refused(ReadError, code, match=detail) as plain,
        files.convert_decoding_errors(path, "TIFF"),
    ):
        raise error
    with (
        refused(ReadError, code, match=detail) as caused,
        files.convert_decoding_errors(path, "TIFF"),
    ):
        raise ValueError("block 0/0") from error
    for found in (plain, caused):
        assert "a.tif" in str(found.value)


@pytest.mark.parametrize("suffix", [".tif", ".png", ".h5", ".zarr"])
@pytest.mark.parametrize(
    ("number", "windows", "code"),
    [
        (errno.EACCES, None, "no-permission"),
        (errno.EACCES, _SHARING, "file-in-use"),
        (errno.EIO, None, "disk-unreachable"),
    ],
)
def test_what_the_system_refuses_is_not_damaged(
    tmp_path, monkeypatch, suffix, number, windows, code
):
    path = tmp_path / f"a{suffix}"
    if suffix == ".h5":
        with h5py.File(path, "w") as file:
            file["a"] = GREY
    else:
        registry.write(Micrograph(GREY), path)
    opened = os.open

    def refuse(name, *flags, **how):
        if not str(name).startswith(str(path)) or Path(name).is_dir():
            return opened(name, *flags, **how)
        raise _raised(number, windows)

    monkeypatch.setattr(os, "open", refuse)
    for call in (read, describe):
        with refused(ReadError, code):
            call(path)


def _compressed(path, number):
    """Write a TIFF that tells of another compression than it has."""
    tifffile.imwrite(path, GREY, metadata=None, compression="zlib")
    data = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as tif:
        at = tif.pages[0].tags["Compression"].offset
    struct.pack_into("<HII", data, at + 2, 4, 1, number)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("number", "name"),
    [(77777, "77777"), (34713, "34713, NIKON_NEF"), (34661, "34661, JBIG")],
)
def test_compression_that_is_not_supported_is_named(tmp_path, number, name):
    path = _compressed(tmp_path / "a.tif", number)
    with refused(ReadError, "format-unsupported", match=name):
        read(path)


def test_damage_inside_a_known_compression_is_damage(tmp_path):
    with refused(ReadError, "file-damaged"):
        read(_compressed(tmp_path / "a.tif", 50000))


def test_tiff_whose_codec_is_missing_says_so(tmp_path, monkeypatch):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, GREY, metadata=None, compression="zstd")
    assert np.array_equal(read(path).array(), GREY)

    def missing(*_, **__):
        raise imagecodecs.DelayedImportError("zstd_decode")

    monkeypatch.setattr(tifffile.TIFF, "DECOMPRESSORS", {50000: missing})
    with refused(ReadError, "extra-missing"):
        read(path)


@pytest.mark.parametrize("version", [2, 3])
def test_store_whose_codec_is_missing_says_so(tmp_path, version):
    if version > 2 and not hasattr(zarr.errors, "UnknownCodecError"):
        pytest.skip("needs zarr 3.1, which names the codec")
    path = tmp_path / "a.zarr"
    group = zarr.open_group(str(path), mode="w", zarr_format=version)
    group.create_array("0", data=GREY, chunks=(32, 32))
    images = [{"version": "0.4", "axes": ["y", "x"], "datasets": [{"path": "0"}]}]
    axes = [{"name": name, "type": "space"} for name in "yx"]
    scale = [{"type": "scale", "scale": [1, 1]}]
    sets = [{"path": "0", "coordinateTransformations": scale}]
    new = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": sets}]}
    group.attrs.update({"multiscales": images} if version == 2 else {"ome": new})
    about = path / "0" / {2: ".zarray", 3: "zarr.json"}[version]
    values = json.loads(about.read_text())
    if version == 2:
        values["compressor"] = {"id": "unheard"}
    else:
        values["codecs"].append({"name": "unheard", "configuration": {}})
    about.write_text(json.dumps(values))
    with refused(ReadError, "extra-missing"):
        read(path).array()


def test_hdf5_whose_filter_is_missing_says_so(tmp_path):
    how = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    how.set_chunk(GREY.shape)
    how.set_filter(32015, h5py.h5z.FLAG_OPTIONAL, ())  # zstd, a plugin
    with h5py.File(tmp_path / "a.h5", "w") as file:
        space = h5py.h5s.create_simple(GREY.shape)
        kind = h5py.h5t.NATIVE_UINT8
        made = h5py.h5d.create(file.id, b"image", kind, space, how)
        made.write_direct_chunk((0, 0), bytes(100), 0)
    with refused(ReadError, "extra-missing"):
        read(tmp_path / "a.h5").array()


def test_png_without_its_library_says_so(tmp_path, monkeypatch):
    registry.write(Micrograph(GREY), tmp_path / "a.png")
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    with refused(ReadError, "extra-missing"):
        read(tmp_path / "a.png")
