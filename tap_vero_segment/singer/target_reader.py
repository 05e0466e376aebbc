"""Singer messages from standard input, and the moments in between, when a signal may end it."""

from __future__ import annotations

import sys
import zlib
from contextlib import contextmanager, nullcontext
from typing import IO, TYPE_CHECKING, Any, Final, NoReturn

from singer_sdk.exceptions import InvalidJSONSchema
from singer_sdk.singerlib.encoding.base import GenericSingerReader
from singer_sdk.singerlib.exceptions import InvalidInputLine

from tap_vero_segment.inputs.body import read_json

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Generator, Iterator, Mapping
    from contextlib import AbstractContextManager


_FIELDS: Final[Mapping[str, Mapping[str, type]]] = {
    "RECORD": {"stream": str, "record": dict},
    "SCHEMA": {"stream": str, "schema": dict},
    "STATE": {"value": dict},
    "ACTIVATE_VERSION": {"stream": str, "version": int},
    "BATCH": {"stream": str, "encoding": dict, "manifest": list},
}
"""What each type of message has to have."""


_TRIPPED: Final = (
    AttributeError,
    EOFError,
    InvalidJSONSchema,
    LookupError,
    NotImplementedError,
    OSError,
    RecursionError,
    TypeError,
    ValueError,
    zlib.error,
)


class MessageReader(GenericSingerReader[bytes]):
    """Reads Singer messages; of one that is none it repeats nothing.

    Attributes:
        waiting: What holds while a message is waited for.
        number: The number of the line at hand, from 1.
        streams: The streams that have had a SCHEMA message.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waiting: Callable[[], AbstractContextManager[None]] = nullcontext
        self.number = 0
        self.streams: set[str] = set()

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
        """Read a message, and check that it has what its type asks for.

        Raises:
            InvalidInputLine: It is not a JSON object, or not a message that can be used.
        """
        text = line.encode() if isinstance(line, str) else line
        try:
            message = read_json(text)
        except (ValueError, RecursionError) as error:
            self._refuse("no JSON that can be read", error)
        if not isinstance(message, dict):
            self._refuse("JSON, but no object")
        self._check(message)
        return message

    def assert_line_requires(self, line_dict: dict[str, Any], requires: set[str]) -> None:  # type: ignore[override]
        """Do nothing: :meth:`deserialize_json` has checked it."""

    def _check(self, message: dict[str, Any]) -> None:
        kind = message.get("type")
        fields = _FIELDS.get(kind) if isinstance(kind, str) else None
        if fields is None:
            known = "type" in message
            self._refuse("a message of an unknown type" if known else "a message without type")
        for name, expected in fields.items():
            value = message.get(name)
            if not isinstance(value, expected):
                has = "with an unusable" if name in message else "without"
                self._refuse(f"a message {has} {name}")
        if kind == "SCHEMA":
            self.streams.add(message["stream"])
        elif kind in {"ACTIVATE_VERSION", "BATCH"} and message["stream"] not in self.streams:
            self._refuse(f"a message of type {kind} before the SCHEMA message of its stream")

    @contextmanager
    def refusing(self, what: str) -> Generator[None]:
        """Refuse the line at hand if the SDK trips over what it says.

        Args:
            what: What the line is then.

        Raises:
            InvalidInputLine: It does.
        """
        try:
            yield
        except _TRIPPED as error:
            reason = error.strerror if isinstance(error, OSError) else None
            self._refuse(f"{what}: {reason or type(error).__name__}", error)

    def _refuse(self, what: str, error: Exception | None = None) -> NoReturn:
        msg = f"line {self.number} is {what}"
        raise InvalidInputLine(msg) from error
