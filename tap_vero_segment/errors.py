"""Errors that the user sees in one line, without a traceback, and checks that settings share."""

from __future__ import annotations

import traceback
from contextlib import contextmanager
from pathlib import PurePath
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator


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


@contextmanager
def importing(missing: UserError) -> Generator[None]:
    """Import an extra's packages, or modules of ours that do.

    Args:
        missing: What is raised where a package is not installed.
    """
    try:
        yield
    except ImportError as error:
        if (error.name or "").partition(".")[0] == "tap_vero_segment":
            raise
        raise missing from error


_QUOTES: Final = frozenset("\"'`‘’“”")  # noqa: RUF001  # word processors make these


def check_pasted(setting: str, value: str) -> None:
    """Make sure that nothing stands around a secret or a URL, and nothing unseen in it.

    Kubernetes keeps the line end of a file that a secret was made of; ``docker --env-file`` keeps
    quotes. With either, no secret would ever match.

    Args:
        setting: The setting's or variable's name, for the error.
        value: Its value.

    Raises:
        SettingError: Something does.
    """
    if value.endswith(("\n", "\r")):
        problem = "it ends with a line end: remove that (printf %s writes none, echo does)"
    elif value != value.strip():
        problem = "a blank stands before or behind it: remove that"
    elif value and (value[0] in _QUOTES or value[-1] in _QUOTES):
        problem = "a quotation mark stands before or behind it: remove that"
    elif not value.isprintable():
        problem = "it contains a line end, a control character or an invisible one: remove that"
    else:
        return
    raise SettingError(setting, problem)
