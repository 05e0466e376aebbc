"""Records against their schemas, formats included."""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING

from jsonschema import Draft7Validator, FormatChecker

if TYPE_CHECKING:
    from tests.support.tap import Messages

_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")

# jsonschema passes over the format unless another package is there.
FORMATS = FormatChecker()


@FORMATS.checks("date-time", raises=ValueError)
def _is_date_time(value: object) -> bool:
    if not isinstance(value, str):
        return True
    return bool(_RFC_3339.fullmatch(value) and datetime.fromisoformat(value))


def assert_records_fit_their_schemas(messages: Messages) -> None:
    """Each record follows its SCHEMA message, and has all of its columns and no other."""
    validators: dict[str, Draft7Validator] = {}
    for message in messages.all:
        if message["type"] == "SCHEMA":
            Draft7Validator.check_schema(message["schema"])
            validators[message["stream"]] = Draft7Validator(
                message["schema"], format_checker=FORMATS
            )
        elif message["type"] == "RECORD":
            validator, record = validators[message["stream"]], message["record"]
            assert not list(validator.iter_errors(record))
            assert record.keys() == validator.schema["properties"].keys()
