"""Folder-based Zarr store that checks each file before reading it."""

import asyncio

from zarr.abc.store import ByteRequest, RangeByteRequest, SuffixByteRequest
from zarr.core.buffer import Buffer, BufferPrototype, default_buffer_prototype
from zarr.storage import LocalStore

from napari_semsr.core.opening import open_file, read_bytes

_MARKS = {"zarr.json", ".zarray", ".zattrs", ".zgroup", ".zmetadata"}
_LARGEST_MARK = 1 << 26  # bytes; chosen: metadata of a hundred thousand arrays
_LARGEST_FILE = 1 << 30  # bytes; chosen: twice the largest block that is read


class FolderStore(LocalStore):
    """Local store that rejects pipes and devices, and limits file sizes."""

    # Consolidated metadata is a copy that other writers do not update, and the files
    # that it saves are quick to read from a folder.
    supports_consolidated_metadata = False

    async def get(
        self,
        key: str,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        """Read a file in the folder, or a part of it; None if it does not exist."""
        if not self._is_open:
            await self._open()
        return await asyncio.to_thread(self._read_file, key, prototype, byte_range)

    def get_sync(
        self,
        key: str,
        *,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        """Read a file synchronously, like `get`."""
        self._ensure_open_sync()
        return self._read_file(key, prototype, byte_range)

    def _read_file(
        self, key: str, prototype: BufferPrototype | None, part: ByteRequest | None
    ) -> Buffer | None:
        path = self.root / key
        buffer_type = (prototype or default_buffer_prototype()).buffer
        most = _LARGEST_MARK if path.name in _MARKS else _LARGEST_FILE
        try:
            if part is None:
                return buffer_type.from_bytes(read_bytes(path, most))
            with open_file(path) as stream:
                size = stream.seek(0, 2)
                if isinstance(part, SuffixByteRequest):
                    start, end = max(0, size - part.suffix), size
                elif isinstance(part, RangeByteRequest):
                    start, end = part.start, min(part.end, size)
                else:
                    start, end = part.offset, size
                stream.seek(start)
                data = stream.read(min(max(end - start, 0), most))
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return None
        return buffer_type.from_bytes(data)
