"""Singer messages from standard input, and the moments in between, when a signal may end it."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from typing import IO, TYPE_CHECKING, Any, NoReturn

from singer_sdk.singerlib.encoding.base import GenericSingerReader
from singer_sdk.singerlib.exceptions import InvalidInputLine

from tap_vero_segment.inputs.body import read_json

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager


class MessageReader(GenericSingerReader[bytes]):
    """Reads Singer messages; of one that is none it repeats nothing.

    Attributes:
        waiting: What holds while a message is waited for.
        number: The number of the line at hand, from 1.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waiting: Callable[[], AbstractContextManager[None]] = nullcontext
        self.number = 0

    @property
    def default_input(self) -> IO[bytes]:
        """Standard input."""
        return sys.stdin.buffer

    def process_lines(
        self, file_input: IO[bytes] | None, callbacks: dict[str, Callable[[dict[str, Any]], None]]
    ) -> Counter[str]:
        """Hand each message to the callback of its type."""
        source = file_input or self.default_input
        # The option --input opens its file as text, by whatever encoding the machine is set to.
        lines: Any = self._lines(getattr(source, "buffer", source))
        return super().process_lines(lines, callbacks)

    def _lines(self, file_input: IO[bytes]) -> Iterator[bytes]:
        while True:
            with self.waiting():
                line = next(file_input, None)
            if line is None:
                return
            self.number += 1
            yield line

    def deserialize_json(self, line: bytes | str) -> dict[str, Any]:
        """Read a message.

        Raises:
            InvalidInputLine: It is no JSON object.
        """
        text = line.encode() if isinstance(line, str) else line
        try:
            message = read_json(text)
        except (ValueError, RecursionError) as error:
            self._refuse("no JSON that can be read", error)
        if not isinstance(message, dict):
            self._refuse("JSON, but no object")
        return message

    def assert_line_requires(self, line_dict: dict[str, Any], requires: set[str]) -> None:  # type: ignore[override]
        """Make sure that a message has what its type asks for.

        Raises:
            InvalidInputLine: It has not.
        """
        missing = requires - line_dict.keys()
        if missing:
            self._refuse(f"a message without {', '.join(sorted(missing))}")

    def _process_unknown_message(self, message_dict: dict[str, Any]) -> None:
        del message_dict
        self._refuse("a message of an unknown type")

    def _refuse(self, what: str, error: Exception | None = None) -> NoReturn:
        msg = f"line {self.number} is {what}"
        raise InvalidInputLine(msg) from error
