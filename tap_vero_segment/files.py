"""Files that are there whole or not at all, are synced to disk, and only their owner may read.

In a folder with the set-group-ID bit, whose files are its group's, the group may read them as well.
"""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Generator


def make_folder(path: Path) -> None:
    """Make a folder and its parents where they are not there: for their owner only, and synced.

    Raises:
        OSError: It cannot be made, or something else has its name.
    """
    wanted = path
    missing = []
    while not path.exists():
        missing.append(path)
        path = path.parent
    for each in reversed(missing):
        with suppress(FileExistsError):  # another process was quicker
            each.mkdir(mode=0o750 if _is_the_groups(each.parent) else 0o700)
        sync_folder(each.parent)
    if not wanted.is_dir():  # never FileExistsError, which says that a file is there
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(wanted))


def sync_folder(path: Path) -> None:
    """Sync the names in a folder to disk, or they could be gone after a power failure.

    Raises:
        OSError: It cannot be synced.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_new(path: Path, content: bytes) -> None:
    """Write a file that is not there yet; its folder is made where it is not there either.

    Whoever breaks it off leaves nothing under the file's name.

    Raises:
        FileExistsError: There is one of this name, which was left as it is.
        OSError: It cannot be written.
    """
    make_folder(path.parent)
    _write(path, content)


def replace_file(path: Path, content: bytes) -> None:
    """Write a file in the place of another; at any moment one of the two is there, and whole.

    Raises:
        OSError: It cannot be written.
    """
    _write(path, content, os.replace)


def _write(
    path: Path, content: bytes, give_name: Callable[[str, Path], None] | None = None
) -> None:
    with making(path, give_name) as temporary:
        temporary.write_bytes(content)
        if _is_the_groups(path.parent):
            temporary.chmod(0o640)


@contextmanager
def making(path: Path, give_name: Callable[[str, Path], None] | None = None) -> Generator[Path]:
    """Make a file: for its owner only, and whole or not at all.

    Whoever breaks it off leaves nothing under the file's name.

    Args:
        path: The file, in a folder that is there.
        give_name: Gives it its name; unless told otherwise, only where there is none of it yet.

    Yields:
        What to write it under; it gets its own name once it is synced.

    Raises:
        FileExistsError: There is one of this name, which was left as it is.
        OSError: It cannot be written.
    """
    descriptor, temporary = tempfile.mkstemp(".part", f".{path.name}.", path.parent)
    try:
        yield Path(temporary)
        os.fsync(descriptor)
        (give_name or _give_name)(temporary, path)
    finally:
        os.close(descriptor)
        with suppress(FileNotFoundError):
            os.unlink(temporary)  # noqa: PTH108  # as mkstemp has named it
    sync_folder(path.parent)


def _is_the_groups(folder: Path) -> bool:
    return bool(folder.stat().st_mode & stat.S_ISGID)


def _give_name(temporary: str, path: Path) -> None:
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError as error:  # a file system without links
        if path.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from error
        Path(temporary).rename(path)
