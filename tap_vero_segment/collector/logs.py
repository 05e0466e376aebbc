"""What the collector's log looks like: lines of text for people, or of JSON for machines."""

from __future__ import annotations

import logging
import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter

from tap_vero_segment import times

if TYPE_CHECKING:
    from logging import LogRecord

    from pythonjsonlogger.core import LogData


class LogFormat(StrEnum):
    """How a line of the log is written."""

    TEXT = "text"
    JSON = "json"


TEXT: Final = "%(asctime)s %(levelname)s %(message)s"


def configure(log_format: LogFormat = LogFormat.TEXT) -> None:
    """Log to standard error, from INFO on; of the server itself, from WARNING on.

    A second call changes the format of what the first one has set up.
    """
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format=TEXT)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    if log_format is LogFormat.JSON:
        for handler in logging.getLogger().handlers:
            handler.setFormatter(_JsonFormatter())


class _JsonFormatter(JsonFormatter):
    """An object a line: timestamp, level, logger, message, and what the line is about."""

    def __init__(self) -> None:
        # The server colours some of its lines in a copy of the message.
        super().__init__(reserved_attrs=[*RESERVED_ATTRS, "color_message"])

    def add_fields(
        self, log_data: LogData, record: LogRecord, message_dict: dict[str, object]
    ) -> None:
        log_data["timestamp"] = times.to_text(int(record.created * times.SECOND))
        log_data["level"] = record.levelname
        log_data["logger"] = record.name
        super().add_fields(log_data, record, message_dict)
