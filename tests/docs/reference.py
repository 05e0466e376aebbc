"""The reference pages of the documentation, made from the code's own tables.

``uv run python -m tests.docs.reference`` writes them to ``docs/reference``.
"""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any

import click
from prometheus_client.parser import text_string_to_metric_families

from tap_vero_segment.collection import (
    COLLECTIONS,
    COMMON_COLUMNS,
    EMAIL_COLUMNS,
    ERASURE_COLUMNS,
    ERASURES,
    PROPERTIES_COLUMN,
    SEGMENT_COLUMNS,
    TRACKS,
    Column,
)
from tap_vero_segment.collector.app import openapi_document
from tap_vero_segment.collector.cli import main as collector
from tap_vero_segment.collector.metrics import PREFIX, Metrics, Scrape, StoreFigures
from tap_vero_segment.collector.settings import ENVIRONMENT, FORWARD_HEADERS, PREVIOUS, Secrets
from tap_vero_segment.stores.base import Backlog, Forward, Summary, Total
from tap_vero_segment.tap import TapVeroSegment
from tap_vero_segment.targets.duckdb import TargetVeroDuckDB
from tap_vero_segment.targets.segment import TargetSegment
from tests.support.repository import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

FOLDER = REPOSITORY / "docs" / "reference"
HEADER = "<!-- Written by `uv run python -m tests.docs.reference`: change the code instead. -->\n"

SINGER = {
    "tap-vero-segment": (TapVeroSegment, "../tap/settings.md"),
    "target-segment": (TargetSegment, "../loading/target-segment.md"),
    "target-vero-duckdb": (TargetVeroDuckDB, "../loading/target-vero-duckdb.md"),
}
"""Each Singer program, and the page that explains its settings."""

FORWARD = Forward(
    1, "https://app.example", 0, 0, failing=True, failure="connection refused", failed_at=0
)
"""A destination whose labels stand for those of all."""

OF_EVERY_ENDPOINT = {400, 403, 404, 405, 408, 431, 500, 503}
"""What every endpoint can return, as the page says once."""


def pages() -> dict[Path, str]:
    """The text of every reference page by its file."""
    return {
        FOLDER / f"{name}.md": HEADER + "\n".join(lines).rstrip() + "\n"
        for name, lines in (
            *((f"{name}-settings", singer(name)) for name in SINGER),
            ("streams", streams()),
            ("commands", commands()),
            ("collector-settings", collector_settings()),
            ("endpoints", endpoints()),
            ("metrics", metrics()),
        )
    }


def table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(header)} |"
    yield f"|{'---|' * len(header)}"
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|').strip() for cell in row)} |"
    yield ""


def plain(text: str) -> str:
    """A description as Markdown, which would take some of its characters for its own."""
    return " ".join(text.replace("*", r"\*").replace("<", r"\<").split())


def singer(name: str) -> Iterator[str]:
    program, guide = SINGER[name]
    schema = deepcopy(program.config_jsonschema)
    program.append_builtin_config(schema)
    yield f"# Settings of {name}"
    yield ""
    yield f"[The guide]({guide}) explains how to use them. In the environment, each setting is"
    yield f"`{program.name.upper().replace('-', '_')}_` followed by its name in capitals."
    yield ""
    yield from table(("setting", "meaning"), settings("", schema, schema["required"]))


def settings(
    prefix: str, schema: dict[str, Any], required: Iterable[str] = ()
) -> Iterator[tuple[str, ...]]:
    """A row for each setting, and for what an object of them has."""
    for name, each in schema["properties"].items():
        if name.startswith("__"):  # names inside stream maps, which the SDK documents
            continue
        notes = [
            *(["required"] if name in required else []),
            *(["secret"] if each.get("secret") else []),
            each.get("format")
            or " or ".join(one for one in each.get("type", ["any"]) if one != "null"),
        ]
        yield (
            f"`{prefix}{name}` ({', '.join(notes)})",
            plain(each.get("description", "")) + default(each.get("default")),
        )
        if "properties" in each:
            yield from settings(f"{prefix}{name}.", each)


def default(value: object) -> str:
    return (
        ""
        if value is None
        else f" Default: `{str(value).removesuffix('.0')}`.".replace("False", "false")
    )


def streams() -> Iterator[str]:
    yield "# Streams and columns"
    yield ""
    yield "Every stream has the primary key `id` and the replication key `loaded_at`."
    yield "[The guide](../tap/streams.md) explains them."
    yield ""
    yield "## Streams"
    yield ""
    rows = [
        (
            f"`{each.stream}`",
            each.event,
            f"`{each.vero_type}`",
            "yes" if each.email else "no",
            each.description,
        )
        for each in COLLECTIONS
    ]
    everything = "Every event of the seven email streams, with the common columns only."
    rows.insert(sum(each.email for each in COLLECTIONS), (f"`{TRACKS}`", "", "", "yes", everything))
    rows.append((f"`{ERASURES}`", "", "", "no", "The ids of events that were erased."))
    yield from table(("stream", "event", "Vero's `type`", "selected by default", "meaning"), rows)
    yield f"## Columns of every stream except `{ERASURES}`"
    yield ""
    yield from columns(COMMON_COLUMNS)
    yield f"## Columns of every stream except `{TRACKS}` and `{ERASURES}`"
    yield ""
    yield from columns((*EMAIL_COLUMNS, PROPERTIES_COLUMN))
    yield "## Columns of every stream with the setting `segment_columns`"
    yield ""
    yield from columns(SEGMENT_COLUMNS)
    yield f"## Columns of `{ERASURES}`"
    yield ""
    yield from columns(ERASURE_COLUMNS)
    for collection in COLLECTIONS:
        if collection.columns:
            yield f"## Columns of `{collection.stream}` only"
            yield ""
            yield from columns(collection.columns)


def columns(found: Iterable[Column]) -> Iterator[str]:
    yield from table(
        ("column", "type", "meaning"),
        (
            (
                f"`{each.name}`",
                f"{each.kind}{' or null' if each.nullable else ''}",
                plain(each.description),
            )
            for each in found
        ),
    )


def commands() -> Iterator[str]:
    yield "# Commands"
    yield ""
    yield "The text that `--help` prints for each command."
    for name, command in (
        ("vero-collector", collector),
        *((name, program.cli) for name, (program, _) in SINGER.items()),
    ):
        yield from command_help(name, command, 2)


def command_help(name: str, command: click.Command, level: int) -> Iterator[str]:
    context = click.Context(command, info_name=name, terminal_width=80)
    yield ""
    yield f"{'#' * level} {name}"
    yield ""
    yield "```text"
    yield from (line.rstrip() for line in command.get_help(context).splitlines())
    yield "```"
    if isinstance(command, click.Group):
        for each, inner in sorted(command.commands.items()):
            if not inner.hidden:
                yield from command_help(f"{name} {each}", inner, 3)


def collector_settings() -> Iterator[str]:
    yield "# Settings of vero-collector"
    yield ""
    yield "[The guide](../collector/running.md) explains them."
    yield ""
    yield "## Secrets"
    yield ""
    yield "Secrets come from the environment or from `.env` in the working folder, never from an"
    yield f"option. The same name with `{PREVIOUS.upper()}` at its end is an older secret that is"
    yield "[valid beside it](../operating/secrets.md)."
    yield ""
    endpoints = {
        "webhook_token": "`POST /vero/TOKEN`, for Vero's webhooks",
        "read_token": "`GET /v1/events` for the tap, and the live page at `/`",
        "write_key": "`POST /v1/track`, `/v1/batch` and the rest of Segment's Tracking API",
        "segment_secret": "`POST /segment`, for Segment's Webhooks destinations",
    }
    assert endpoints.keys() == set(Secrets._fields)
    yield from table(
        ("variable", "enables"),
        ((f"`{ENVIRONMENT}{name.upper()}`", endpoints[name]) for name in Secrets._fields),
    )
    yield f"`{FORWARD_HEADERS}` has the headers that"
    yield "[the destinations of `forward`](../collector/forwarding.md) get."
    yield ""
    yield "## Options of `vero-collector serve`"
    yield ""
    options = [
        option
        for option in collector.commands["serve"].params
        if isinstance(option, click.Option) and option.envvar
    ]
    yield from table(
        ("variable, option", "meaning"),
        (
            (
                f"`{option.envvar}`, `{option.opts[0]}`",
                plain(option.help or "")
                + default(None if option.is_flag or option.multiple else option.default),
            )
            for option in options
        ),
    )


def endpoints() -> Iterator[str]:
    document = openapi_document()
    described = {
        int(status): each["description"]
        for status, each in document["components"]["responses"].items()
    }
    yield "# Endpoints"
    yield ""
    yield "A running collector serves this as OpenAPI 3.1 at `/openapi.json`."
    yield "[The guide](../collector/endpoints.md) explains what the endpoints accept."
    yield ""
    rows: dict[tuple[str, ...], list[str]] = {}
    for path, operations in document["paths"].items():
        for method, each in operations.items():
            if method in {"head", "options"}:
                continue
            schemes = " or ".join(f"`{next(iter(one))}`" for one in each["security"] if one)
            special = sorted(set(map(int, each["responses"])) - OF_EVERY_ENDPOINT)
            key = (plain(each["summary"]), schemes, ", ".join(map(str, special)))
            rows.setdefault(key, []).append(f"`{method.upper()} {path}`")
    yield from table(
        ("endpoint", "purpose", "secret", "statuses"),
        ((", ".join(paths), *key) for key, paths in rows.items()),
    )
    yield "`GET` endpoints accept `HEAD` as well. The Tracking API accepts `OPTIONS` from browsers."
    always = ", ".join(str(status) for status in sorted(OF_EVERY_ENDPOINT))
    yield f"Every endpoint can also return {always}."
    yield ""
    yield from table(
        ("status", "meaning"),
        ((f"{status}", plain(text)) for status, text in sorted(described.items())),
    )
    yield "## Secrets of the endpoints"
    yield ""
    yield from table(
        ("secret", "how it is sent"),
        (
            (f"`{name}`", plain(each["description"]))
            for name, each in document["components"]["securitySchemes"].items()
        ),
    )


def metrics() -> Iterator[str]:
    totals = [Total(each.stream, 1, 1, 1) for each in COLLECTIONS]
    summary = Summary(totals, 0, 0)
    exposed = (
        Metrics()
        .expose(Scrape(0, 0, 0, StoreFigures(summary, 0, [(FORWARD, Backlog(0, None, 0))])), "")[1]
        .decode()
    )
    yield "# Metrics"
    yield ""
    yield "`GET /metrics` returns these, and Prometheus's usual metrics of the process."
    yield "[The guide](../collector/monitoring.md) says what deserves an alert."
    yield ""
    found = [
        family
        for family in text_string_to_metric_families(exposed)
        if family.name.startswith(PREFIX)
    ]
    yield from table(
        ("metric", "type", "meaning"),
        (
            (
                f"`{family.name}{'_total' if family.type == 'counter' else ''}`",
                family.type,
                plain(family.documentation),
            )
            for family in found
        ),
    )
    yield "## Labels"
    yield ""
    for family in found:
        for label in sorted({name for each in family.samples for name in each.labels} - {"le"}):
            values = dict.fromkeys(each.labels[label] for each in family.samples)
            yield f"- `{label}` of `{family.name}`: {', '.join(f'`{each}`' for each in values)}."


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
        print(path.relative_to(REPOSITORY))  # noqa: T201  # what was written
