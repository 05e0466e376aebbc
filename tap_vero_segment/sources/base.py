"""What every source can do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec

from tap_vero_segment.errors import SettingError
from tap_vero_segment.track import TrackCall, decode

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import TracebackType
    from typing import Self

SETTING = "source"
"""The setting that names a source, for errors."""


class Source(Protocol):
    """A place that holds track calls, each with its ``loaded_at``.

    Opening it fixes the high-water mark: what becomes readable later is left for the next time.
    Opening and reading raise :class:`SettingError` when the source cannot be read.
    """

    def pages(self, after: str | None, size: int) -> Iterator[list[TrackCall]]:
        """Yield what became readable after a cursor, up to the high-water mark, page by page.

        Args:
            after: A ``loaded_at``, as fixed-width UTC text; None: from the beginning.
            size: The most track calls in a page.

        Yields:
            Pages that are not empty, in strictly rising order of ``loaded_at``.
        """

    def close(self) -> None:
        """Let go of the source."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None: ...


def decode_lines(lines: Iterable[bytes], where: str) -> list[TrackCall]:
    """Read a page's lines.

    Args:
        lines: Track calls as JSON with ``loadedAt``.
        where: The page, for errors.

    Raises:
        SettingError: A line is no such thing. Its content is not repeated.
    """
    calls = []
    for number, line in enumerate(lines, start=1):
        try:
            call = decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise _unreadable(where, number, "no track call") from error
        if call.loaded_at is None:
            raise _unreadable(where, number, "a track call without loadedAt")
        calls.append(call)
    return calls


def _unreadable(where: str, number: int, what: str) -> SettingError:
    return SettingError(SETTING, f"{where}: line {number} is {what}")
