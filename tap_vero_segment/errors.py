"""Errors that are told to the user in one line, without a traceback."""

from __future__ import annotations

import traceback
from pathlib import PurePath
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_FRAMES: Final = 8
"""Of an unexpected error, the innermost."""


class UserError(Exception):
    """Something that the user can mend: the message says what, and names the setting.

    Commands print the message as one line and exit with status 1. It never holds a secret or a
    recipient's data.
    """


class SettingError(UserError):
    """A setting that cannot be used as it is.

    Args:
        setting: The setting's name as the user writes it, ``source`` say.
        problem: What is wrong with it, and what would be right.
    """

    def __init__(self, setting: str, problem: str) -> None:
        super().__init__(f"{setting}: {problem}")
        self.setting = setting
        self.problem = problem


def describe_fault(error: BaseException) -> str:
    """Return an unexpected error's type, and the lines of code that it came through.

    Neither its text nor any value is in it, as they can be secrets or a recipient's data.
    """
    return ", caused by ".join(_describe_one(one) for one in _chain(error))


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: list[BaseException] = []
    one: BaseException | None = error
    while one is not None and one not in seen:
        yield one
        seen.append(one)
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)


def _describe_one(error: BaseException) -> str:
    frames = list(traceback.walk_tb(error.__traceback__))[-_FRAMES:]
    lines = [
        f"{_module(frame.f_code.co_filename)}:{line} in {frame.f_code.co_name}"
        for frame, line in reversed(frames)
    ]
    return f"{type(error).__name__} at {', from '.join(lines)}" if lines else type(error).__name__


def _module(path: str) -> str:
    """Return a file's path in its package, without what it is of this machine."""
    parts = PurePath(path).parts
    for root in ("site-packages", "tap_vero_segment"):
        if root in parts:
            after = len(parts) - parts[::-1].index(root)
            return "/".join(parts[after:])
    return parts[-1]
