"""Files in a folder or below an s3:// URL: each written whole, whatever happens, or not at all.

A local file is written under a temporary name and then renamed, an S3 object in one put. What is in the files and where
they lie is archive.py's.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import TypeVar
from uuid import uuid4

import pyarrow as pa
import pyarrow.fs as pafs

from spotlab_pipelines.errors import InvalidInput, NotFound, StoreUnavailable

T = TypeVar("T")


class FileStore:
    """The files below `url`: a folder (made when it is first written to) or s3://bucket/prefix.

    Raises (all methods):
        StoreUnavailable: the folder or bucket cannot be read or written.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._opened: tuple[pafs.FileSystem, str] | None = None

    def remove(self, path: str) -> None:
        """Remove a file that `write_scrape` wrote; one that is gone already is no error."""
        # A file alone may vanish: AWS lets an object be deleted that is not there.
        with contextlib.suppress(FileNotFoundError):
            self.attempt(f"be cleared of {path}", lambda filesystem, root: filesystem.delete_file(f"{root}/{path}"))

    def remove_leftovers(self, folder: str, *, before: datetime) -> int:
        """Remove the unfinished files below `folder` of writers that were killed before then; return how many."""

        def search(filesystem: pafs.FileSystem, root: str) -> list[str]:
            found = filesystem.get_file_info(
                pafs.FileSelector(f"{root}/{folder}", allow_not_found=True, recursive=True)
            )
            unfinished = (info for info in found if info.base_name.startswith(".") and info.extension == "tmp")
            return [info.path.removeprefix(f"{root}/") for info in unfinished if info.mtime and info.mtime < before]

        paths = self.attempt("be searched", search)
        for path in paths:
            self.remove(path)
        return len(paths)

    def _filesystem(self) -> tuple[pafs.FileSystem, str]:
        if self._opened is None:
            if self.url.startswith("s3://"):
                filesystem, root = pafs.FileSystem.from_uri(self.url)
            elif "://" in self.url:
                raise InvalidInput(
                    f"An archive is a folder or an s3:// URL, got {self.url!r}.", remedy="Set SPOTLAB_ARCHIVE_URL."
                )
            else:
                filesystem, root = pafs.LocalFileSystem(), self.url
            self._opened = filesystem, root
        return self._opened

    def attempt(self, action: str, work: Callable[[pafs.FileSystem, str], T]) -> T:
        """Call `work` with the file system and the root; a FileNotFoundError of it passes as it is."""
        try:
            return work(*self._filesystem())
        except FileNotFoundError:
            raise
        except (OSError, pa.ArrowException) as error:
            raise StoreUnavailable(
                f"The archive {self.url} could not {action}: {error}",
                remedy="Check SPOTLAB_ARCHIVE_URL and its rights.",
            ) from error

    def exists(self, path: str) -> bool:
        """Whether there is a file."""
        info = self.attempt("be searched", lambda fs, root: fs.get_file_info(f"{root}/{path}"))
        return info.type == pafs.FileType.File

    def read_file(self, path: str) -> pa.Buffer:
        """Read a file; one that is not there is a FileNotFoundError."""

        def read(filesystem: pafs.FileSystem, root: str) -> pa.Buffer:
            with filesystem.open_input_file(f"{root}/{path}") as file:
                return file.read_buffer()

        return self.attempt("be read", read)

    def read_bytes(self, path: str, what: str) -> pa.Buffer:
        """Read a file; `what` it is, for the message.

        Raises:
            NotFound: it is not there.
        """
        try:
            return self.read_file(path)
        except FileNotFoundError:
            raise NotFound(
                f"{what} is not in the archive {self.url} (looked for {path}).",
                remedy="Run the step that writes it first.",
            ) from None

    def probe(self) -> None:
        """Write a small file and remove it: whether the archive can be used, before anything depends on it."""
        self.write_file(".probe", pa.py_buffer(b"probe"))
        self.attempt("be written", lambda filesystem, root: filesystem.delete_file(f"{root}/.probe"))

    def write_files(self, files: Mapping[str, pa.Buffer]) -> None:
        """Write files, each as `write_file` does, in any order."""
        if self.url.startswith("s3://"):
            # Side by side, because a put to S3 waits; a folder takes them sooner one after the other.
            with ThreadPoolExecutor(max_workers=8) as pool:
                list(pool.map(self.write_file, files, files.values()))
        else:
            for path, data in files.items():
                self.write_file(path, data)

    def write_file(self, path: str, data: pa.Buffer) -> None:
        """Write a file, whole or not at all, replacing what is there."""

        def write(filesystem: pafs.FileSystem, root: str) -> None:
            target = f"{root}/{path}"
            if not isinstance(filesystem, pafs.LocalFileSystem):
                with filesystem.open_output_stream(target) as stream:
                    stream.write(data)
                return
            folder, _, name = target.rpartition("/")
            # Tools that read a folder as a data set pass over names that begin with a dot.
            temporary = f"{folder}/.{name}.{uuid4().hex}.tmp"
            filesystem.create_dir(folder, recursive=True)
            try:
                with filesystem.open_output_stream(temporary) as stream:
                    stream.write(data)
                filesystem.move(temporary, target)
            except BaseException:
                if filesystem.get_file_info(temporary).type == pafs.FileType.File:
                    filesystem.delete_file(temporary)
                raise

        try:
            self.attempt("be written", write)
        except FileNotFoundError as error:
            raise StoreUnavailable(f"The archive {self.url} could not be written: {error}") from error
