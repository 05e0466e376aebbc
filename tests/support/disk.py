"""A disk that can be watched and can fail, under the SQLite files of this process."""

from __future__ import annotations

from typing import TYPE_CHECKING

import apsw

if TYPE_CHECKING:
    from collections.abc import Callable

_REAL = "unix"


class Disk(apsw.VFS):
    """Hands on to the real disk, and tells or fails on the way.

    Attributes:
        watch: Called with ``write`` or ``sync`` and the file's name, after it was done.
        fail: Returns the error to meet, given the same, or None.
    """

    def __init__(self) -> None:
        super().__init__("watched", _REAL, makedefault=True)
        self.watch: Callable[[str, str], object] = lambda *_: None
        self.fail: Callable[[str, str], apsw.Error | None] = lambda *_: None

    def xOpen(self, name, flags):  # noqa: N802
        return _File(self, name, flags)


class _File(apsw.VFSFile):
    def __init__(self, disk, name, flags) -> None:
        self._disk = disk
        self._name = name.filename() if isinstance(name, apsw.URIFilename) else str(name)
        super().__init__(_REAL, name, flags)

    def xWrite(self, data, offset):  # noqa: N802
        self._meet("write")
        super().xWrite(data, offset)
        self._disk.watch("write", self._name)

    def xSync(self, flags):  # noqa: N802
        self._meet("sync")
        super().xSync(flags)
        self._disk.watch("sync", self._name)

    def _meet(self, what: str) -> None:
        error = self._disk.fail(what, self._name)
        if error is not None:
            raise error
