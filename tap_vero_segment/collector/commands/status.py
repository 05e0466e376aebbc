"""``vero-collector status``: what the store holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from tap_vero_segment import times
from tap_vero_segment.collection import COLLECTIONS
from tap_vero_segment.collector.commands.repair_clock import clock_warning
from tap_vero_segment.collector.error_reasons import STATUSES
from tap_vero_segment.stores.base import BACKLOG_COUNTED
from tap_vero_segment.stores.open import open_reader
from tap_vero_segment.terminal import table

if TYPE_CHECKING:
    from tap_vero_segment.stores.base import Backlog, Forward, Refused, Summary
    from tap_vero_segment.stores.erasures import ErasureFigures


def status(store: str, *, as_json: bool) -> str:
    """Describe a store: events per collection, first and last ``loaded_at``, dead letters.

    Raises:
        SettingError: There is no such store.
        StoreError: It cannot be read.
    """
    with open_reader(store, "store") as reader:
        behind = reader.clock_behind()
        erasures = reader.erasure_figures()
        refused = reader.refused()
        figures = _figures(reader.summary()) | {
            "clock_behind_seconds": behind / times.SECOND,
            "refused": {
                each.reason: {
                    "requests": each.requests,
                    "last_at": times.to_text(each.last_at),
                }
                for each in refused
            },
            "forwards": [_forward(each, reader.backlog(each)) for each in reader.forwards()],
            "erasures": erasures._asdict(),
        }
    if as_json:
        return msgspec.json.encode(figures).decode()
    rows = [
        (name, str(total["events"]), total["first_loaded_at"] or "", total["last_loaded_at"] or "")
        for name, total in figures["collections"].items()
    ]
    warning = clock_warning(behind)
    deleted = figures["deleted_dead_letters"]
    return "\n".join(
        [
            *table(("collection", "events", "first loaded_at", "last loaded_at"), rows),
            "",
            f"events: {figures['events']}",
            f"dead letters: {_or_hidden(figures['quarantined'])}",
            *([f"deleted dead letters: {deleted}"] if deleted else []),
            f"ignored calls (not Vero events): {figures['ignored']}",
            *map(_in_words, figures["forwards"]),
            f"refused requests: {sum(each.requests for each in refused)}",
            *_refused_table(refused),
            *(_erasures(erasures) if erasures.erasures else []),
            *([f"warning: {warning}"] if warning else []),
        ]
    )


def _forward(forward: Forward, backlog: Backlog) -> dict[str, Any]:
    """Return how far a destination of ``forward`` has come, and what it lacks."""
    oldest, failed_at = backlog.oldest, forward.failed_at
    return {
        "number": forward.number,
        "destination": forward.destination,
        "loaded_at": times.to_text(forward.until) if forward.until else None,
        "events_behind": backlog.events,
        "events_behind_counted_to": BACKLOG_COUNTED,
        "seconds_behind": 0 if oldest is None else max(0, times.now() - oldest) / times.SECOND,
        "dead_letters_behind": backlog.dead_letters,
        "sent": forward.sent,
        "skipped": forward.skipped,
        "refused": forward.refused,
        "failing": forward.failing,
        "last_failure": forward.failure,
        "last_failed_at": None if failed_at is None else times.to_text(failed_at),
    }


def _in_words(forward: dict[str, Any]) -> str:
    events, letters = forward["events_behind"], forward["dead_letters_behind"]
    behind = f"{events} events" if events < BACKLOG_COUNTED else f"{events} events or more"
    line = f"forwarding to {forward['destination']} ({forward['number']}): {behind} behind"
    if events:
        line += f" by {forward['seconds_behind']:.0f} s"
    if letters:
        line += f", {letters} dead letters behind"
    for name, what in (
        ("sent", "sent"),
        ("refused", "refused and skipped"),
        ("skipped", "of other inputs skipped"),
    ):
        if forward[name] or name == "sent":
            line += f", {forward[name]} {what}"
    if forward["last_failure"] is not None:
        state = "failing" if forward["failing"] else "last failed"
        line += f"; {state} at {forward['last_failed_at']}: {forward['last_failure']}"
    return line


def _refused_table(refused: list[Refused]) -> list[str]:
    rows = [
        (
            each.reason.replace("_", " "),
            STATUSES.get(each.reason, ""),
            str(each.requests),
            times.to_text(each.last_at),
        )
        for each in refused
    ]
    return table(("reason", "status", "requests", "last one"), rows) if rows else []


def _erasures(figures: ErasureFigures) -> list[str]:
    unfinished = (
        f", of which {figures.unfinished} are not finished: run the same erase again"
        if figures.unfinished
        else ""
    )
    return [
        f"erased addresses and user ids: {figures.erasures}{unfinished}",
        f"erased events: {figures.events}",
        f"suppressed addresses and user ids: {figures.suppressed}",
        f"dropped, as of erased people: {figures.dropped}",
    ]


def _or_hidden(count: int | None) -> str:
    return "not visible to this user" if count is None else str(count)


def _figures(summary: Summary) -> dict[str, Any]:
    totals = {total.collection: total for total in summary.totals}
    collections = {}
    for collection in COLLECTIONS:
        total = totals.get(collection.stream)
        collections[collection.stream] = {
            "events": total.events if total else 0,
            "first_loaded_at": times.to_text(total.first_loaded_at) if total else None,
            "last_loaded_at": times.to_text(total.last_loaded_at) if total else None,
        }
    firsts = [total.first_loaded_at for total in summary.totals]
    lasts = [total.last_loaded_at for total in summary.totals]
    return {
        "collections": collections,
        "events": sum(total.events for total in summary.totals),
        "first_loaded_at": times.to_text(min(firsts)) if firsts else None,
        "last_loaded_at": times.to_text(max(lasts)) if lasts else None,
        "quarantined": summary.dead_letters,
        "deleted_dead_letters": summary.letters_deleted,
        "ignored": summary.ignored,
    }
