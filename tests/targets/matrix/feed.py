"""What the tap writes in each phase, once for all targets: its records are the truth.

The webhooks go to a real collector over HTTP, and the tap reads its store.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections import Counter
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tests.support.archive import write_folder
from tests.support.collector import Collector, clean_environment
from tests.support.load import Load
from tests.support.payloads import EMAIL_TYPES, STREAM_OF
from tests.support.streams import ALL_STREAMS, DEFAULT_STREAMS, catalog_of
from tests.support.tap import tap_command
from tests.targets.matrix.events import archive, webhooks

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

FIRST: Final = "first load"
NOTHING: Final = "nothing new"
MORE: Final = "50 more"
AGAIN: Final = "no state"
ALL: Final = "13 streams"
ARCHIVE: Final = "archive"
PHASES: Final = (FIRST, NOTHING, MORE, AGAIN, ALL, ARCHIVE)

DUPLICATES: Final = 50
LATER: Final = 50

OBJECTS: Final = "objects"
TEXT: Final = "objects as text"
BOUNDED: Final = "as text, maxLength"
VARIANTS: Final[dict[str, dict[str, Any]]] = {
    OBJECTS: {},
    TEXT: {"objects_as_text": True},
    BOUNDED: {"objects_as_text": True},
}
"""The tap's settings in each variant."""


class Messages(NamedTuple):
    """What the tap wrote in a phase.

    Attributes:
        path: The file that holds the messages.
        records: The records of each stream.
        kinds: The kind of each column of each stream: ``string``, ``time`` or ``object``.
        state: The last state.
    """

    path: Path
    records: dict[str, list[dict[str, Any]]]
    kinds: dict[str, dict[str, str]]
    state: dict[str, Any]


class Feed:
    """The tap's messages of each variant and phase.

    Args:
        folder: An empty folder.
        count: How many webhooks come first.
        variants: The variants that are wanted.
    """

    def __init__(self, folder: Path, count: int, variants: Iterable[str]) -> None:
        self._folder = folder
        self.messages: dict[tuple[str, str], Messages] = {}
        first, later = webhooks(count), webhooks(LATER, count)
        variants = list(variants)
        with Collector(folder) as collector:
            source = {"source": collector.store_url}
            _post(collector, [*first, *first[:DUPLICATES]])
            for variant in variants:
                state = self._run(variant, FIRST, source, None, first).state
                self._run(variant, NOTHING, source, state, [])
            _post(collector, later)
            for variant in variants:
                state = self.messages[variant, NOTHING].state
                state = self._run(variant, MORE, source, state, later).state
                self._run(variant, AGAIN, source, None, [*first, *later])
                self._run(variant, ALL, source, state, None)
        self._check_others([*first, *later])
        source = {"source": write_folder(folder / "archive", archive(count // 5))}
        for variant in variants:
            self._run(variant, ARCHIVE, source, None, None)

    def _run(
        self,
        variant: str,
        phase: str,
        source: dict[str, str],
        state: dict[str, Any] | None,
        posted: list[dict[str, Any]] | None,
    ) -> Messages:
        folder = self._folder / f"{variant}, {phase}"
        folder.mkdir()
        catalog = None
        if phase in {ALL, ARCHIVE} or variant == BOUNDED:
            catalog = catalog_of(*(ALL_STREAMS if phase in {ALL, ARCHIVE} else DEFAULT_STREAMS))
        if catalog is not None and variant == BOUNDED:
            bound(catalog)
        command = tap_command(folder, source | VARIANTS[variant], state=state, catalog=catalog)
        path = folder / "messages"
        with path.open("wb") as output:
            subprocess.run(
                command,
                stdout=output,
                stderr=subprocess.DEVNULL,
                env=clean_environment(),
                check=True,
            )
        messages = self.messages[variant, phase] = _read(path)
        if posted is not None:
            # The records' values are compared with the payloads by the tests of the tap.
            expected = Counter(
                stream
                for payload in posted
                if payload["type"] in EMAIL_TYPES
                for stream in (STREAM_OF[payload["type"]], "tracks")
            )
            assert _counts(messages) == expected
        return messages

    def _check_others(self, posted: list[dict[str, Any]]) -> None:
        """See that a stream that is selected later has all of its events."""
        others = Counter(
            STREAM_OF[payload["type"]] for payload in posted if payload["type"] not in EMAIL_TYPES
        )
        for (_, phase), messages in self.messages.items():
            assert phase != ALL or _counts(messages) == others


def bound(catalog: dict[str, Any]) -> None:
    """Give each column of text a ``maxLength``, as ``schema`` of Meltano's extractors can."""
    for entry in catalog["streams"]:
        for name, schema in entry["schema"]["properties"].items():
            if "format" not in schema:
                schema["type"] = ["string", *({"null"} & {*schema["type"]})]
                schema["maxLength"] = 255 if name in {"id", "event", "event_text"} else 16_000_000


def _post(collector: Collector, payloads: list[dict[str, Any]]) -> None:
    load = Load(collector.url, iter(payloads))
    asyncio.run(load.run(8))
    assert len(load.acknowledged) == len(payloads)


def _counts(messages: Messages) -> dict[str, int]:
    return {stream: len(records) for stream, records in messages.records.items() if records}


def _read(path: Path) -> Messages:
    records: dict[str, list[dict[str, Any]]] = {}
    kinds: dict[str, dict[str, str]] = {}
    state: dict[str, Any] = {}
    with path.open("rb") as lines:
        for line in lines:
            message = json.loads(line, parse_float=Decimal)
            if message["type"] == "SCHEMA":
                properties = message["schema"]["properties"]
                kinds[message["stream"]] = {name: _kind(each) for name, each in properties.items()}
            elif message["type"] == "RECORD":
                records.setdefault(message["stream"], []).append(message["record"])
            elif message["type"] == "STATE":
                state = message["value"]
    return Messages(path, records, kinds, state)


def _kind(schema: dict[str, Any]) -> str:
    if "object" in schema["type"]:
        return "object"
    return "time" if schema.get("format") == "date-time" else "string"
