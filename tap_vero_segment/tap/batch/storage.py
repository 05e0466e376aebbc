"""Where batch files are kept: each is there complete, or not at all."""

from __future__ import annotations

import os
import stat
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import unquote, urlsplit

from tap_vero_segment.errors import SettingError
from tap_vero_segment.files import make_folder, sync_folder
from tap_vero_segment.tap.batch.settings import SETTING

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from tap_vero_segment.archive.objects import Objects

ROOT: Final = f"{SETTING}.storage.root"
"""The setting that names the place, for errors."""


_MODE_OF_FILE: Final = 0o600
"""Batch files hold what the collector's store holds, and are as private."""


class Draft(Protocol):
    """A file that is being written, under no name that anyone could read it by."""

    def begin(self) -> IO[bytes]:
        """Return what it is written to.

        It is not there before, so that who discards it can know of it first: a signal may come
        between any two steps.

        Raises:
            SettingError: It cannot be written there.
        """

    def complete(self) -> str:
        """Give the file its name; return its URL.

        Raises:
            SettingError: It cannot be stored.
        """

    def discard(self) -> None:
        """Leave nothing of it behind, unless it is complete."""


class Storage(Protocol):
    """A folder, or a bucket."""

    def draft(self, name: str) -> Draft:
        """Return a file that is to be of this name."""


def open_storage(root: str, params: Mapping[str, Any]) -> Storage:
    """Open the place that batch files are kept in.

    Args:
        root: A folder's path or URL (``file://batches`` is in the working folder, as the SDK has
            it), or the URL of a bucket or of a prefix in it.
        params: As for :class:`tap_vero_segment.archive.objects.Objects`.

    Raises:
        SettingError: It cannot be opened.
    """
    path = folder_of(root)
    if path is not None:
        return _Folder(path)
    # obstore takes a tenth of a second to import, which no folder should cost.
    from tap_vero_segment.archive.objects import Objects  # noqa: PLC0415

    options = f"{SETTING}.storage.params"
    return _Bucket(Objects(root, params, ROOT, create=True, options_setting=options))


def folder_of(root: str) -> Path | None:
    """Return the folder that a root means; None: it is a bucket."""
    try:
        parts = urlsplit(root)
        if parts.scheme == "file":
            host = "" if parts.netloc == "localhost" else parts.netloc
            return Path(unquote(host + parts.path)).resolve()
        return None if parts.scheme else Path(root).resolve()
    except ValueError as error:  # of a URL that is none, or a path with a NUL
        raise SettingError(ROOT, "it is neither a URL nor the path of a folder") from error


@contextmanager
def told(where: object) -> Generator[None]:
    """Tell what the system refuses by its own words."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise SettingError(ROOT, f"cannot write to {where}: {reason}") from error


class _Folder:
    """A folder of this machine."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with told(path):
            make_folder(path)

    def draft(self, name: str) -> Draft:
        return _LocalDraft(self._path / name)


class _LocalDraft:
    """A file under a temporary name of the same folder, as only there it can be renamed at once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._temporary = path.with_name(f".{path.name}.part")
        self._file: IO[bytes] | None = None

    def begin(self) -> IO[bytes]:
        with told(self._path.parent):
            folder = self._path.parent
            make_folder(folder)
            mode = _MODE_OF_FILE
            if folder.stat().st_mode & stat.S_ISGID:  # whose files are the group's
                mode |= stat.S_IRGRP
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
            self._file = open(os.open(self._temporary, flags, mode), "wb")  # noqa: PTH123, SIM115
        return self._file

    def complete(self) -> str:
        assert self._file is not None  # noqa: S101  # begun
        with told(self._path.parent):
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._temporary.rename(self._path)
            sync_folder(self._path.parent)
        return self._path.as_uri()

    def discard(self) -> None:
        with suppress(OSError):
            if self._file is not None:
                self._file.close()
        with suppress(OSError):
            self._temporary.unlink(missing_ok=True)


class _Bucket:
    """An object store."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    def draft(self, name: str) -> Draft:
        return _RemoteDraft(self._objects, name)


class _RemoteDraft:
    """A file without a name on this machine's disk; the store shows an upload once it is whole."""

    def __init__(self, objects: Objects, name: str) -> None:
        self._objects = objects
        self._name = name
        self._file: IO[bytes] | None = None

    def begin(self) -> IO[bytes]:
        with told("the folder for temporary files"):
            self._file = tempfile.TemporaryFile()  # noqa: SIM115  # until discarded
        return self._file

    def complete(self) -> str:
        assert self._file is not None  # noqa: S101  # begun
        self._file.seek(0)
        self._objects.upload(self._name, self._file)
        self._file.close()
        return f"{self._objects.url}/{self._name}"

    def discard(self) -> None:
        with suppress(OSError):
            if self._file is not None:
                self._file.close()
