import asyncio
import errno
import os

import pytest
import zarr
from zarr.abc.store import OffsetByteRequest, RangeByteRequest, SuffixByteRequest

from napari_semsr.core import FolderStore, ReadError, describe_access_error, read_bytes
from tests.refusals import refused


def test_a_file_is_read_up_to_a_limit_and_a_pipe_not_at_all(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"x" * 9)
    assert read_bytes(path, 9) == b"x" * 9
    with refused(ReadError, "file-too-large"):
        read_bytes(path, 8)
    os.truncate(path, 5 << 20)
    with refused(ReadError, "file-too-large", match="5 MiB, .* 3 MiB"):
        read_bytes(path, 3 << 20)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with refused(ReadError, "not-a-file"):
            read_bytes(tmp_path / "pipe", 9)
    with pytest.raises((IsADirectoryError, PermissionError)):
        read_bytes(tmp_path, 9)


def test_a_refusal_of_the_system_names_the_file(tmp_path):
    for number, code in (
        (errno.EBUSY, "file-in-use"),
        (errno.EACCES, "no-permission"),
        (errno.ESTALE, "disk-unreachable"),
        (errno.EMFILE, "too-many-open-files"),
        (errno.ENOENT, "file-missing"),
        (errno.EISDIR, "not-a-file"),
    ):
        own, other = OSError(number, "no"), OSError(number, "no", "b")
        for error, name in ((own, "a"), (other, "b")):
            outer = ValueError("while reading")
            outer.__cause__ = error
            message = describe_access_error(tmp_path / "a", outer)
            assert message == describe_access_error(tmp_path / "a", error)
            assert message.code == code
            assert message.split()[0].endswith(name)
    assert describe_access_error(tmp_path, OSError(errno.EINVAL, "no")) is None


def test_parts_of_stored_files_are_read(tmp_path):
    (tmp_path / "c").write_bytes(b"0123456789")
    (tmp_path / "folder").mkdir()
    store, kind = FolderStore(tmp_path), zarr.core.buffer.default_buffer_prototype()
    for part, expected in (
        (None, b"0123456789"),
        (RangeByteRequest(2, 5), b"234"),
        (RangeByteRequest(7, 99), b"789"),
        (RangeByteRequest(5, 2), b""),
        (OffsetByteRequest(6), b"6789"),
        (SuffixByteRequest(3), b"789"),
        (SuffixByteRequest(99), b"0123456789"),
    ):
        assert store.get_sync("c", byte_range=part).to_bytes() == expected
        assert asyncio.run(store.get("c", kind, part)).to_bytes() == expected
        assert store.get_sync("d", byte_range=part) is None
        assert store.get_sync("folder", byte_range=part) is None


def test_marks_of_a_store_have_a_lower_limit_than_blocks(tmp_path):
    for name in ("zarr.json", "c"):
        (tmp_path / name).touch()
        os.truncate(tmp_path / name, (1 << 26) + 1)
    store = FolderStore(tmp_path)
    with refused(ReadError, "file-too-large"):
        store.get_sync("zarr.json")
    assert len(store.get_sync("c", byte_range=OffsetByteRequest(1))) == 1 << 26
