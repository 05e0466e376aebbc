"""The file for lines that a run cannot read, if its settings name one."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Any

import msgspec

from tap_vero_segment.errors import SettingError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tap_vero_segment.errors import UserError

SETTING = "dead_letter"
"""The setting that names the file, for errors."""


class DeadLetterFile:
    """Takes dead letters.

    Args:
        path: The file that they are appended to, as NDJSON; None: the first one ends the run.

    Attributes:
        count: How many there were.
        path: The file.

    Raises:
        SettingError: The file cannot be written.
    """

    def __init__(self, path: Path | None) -> None:
        self.count = 0
        self.path = path
        if path is not None:
            self._append(b"")

    def add(self, letter: Mapping[str, Any], error: UserError) -> None:
        """Keep a letter; it is synced when this returns.

        Args:
            letter: What it is and why it is one, as a JSON object.
            error: What ends the run where there is no file.

        Raises:
            UserError: That error.
            SettingError: The file cannot be written.
        """
        if self.path is None:
            raise error
        self._append(msgspec.json.encode(letter) + b"\n")
        self.count += 1

    def _append(self, content: bytes) -> None:
        assert self.path is not None  # noqa: S101  # both callers have looked
        try:
            # Only for the owner: a letter holds what its recipient's event holds.
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            with open(descriptor, "ab") as file:  # noqa: PTH123  # a descriptor, no path
                file.write(content)
                file.flush()
                if stat.S_ISREG(os.fstat(file.fileno()).st_mode):  # /dev/null has no disk
                    os.fsync(file.fileno())
        except (OSError, ValueError) as error:  # a path with a NUL is a ValueError
            reason = error.strerror if isinstance(error, OSError) else error
            raise SettingError(SETTING, f"cannot write {self.path}: {reason}") from error
