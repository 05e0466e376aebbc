"""A collector's store as a source."""

from __future__ import annotations

from typing import TYPE_CHECKING

import apsw
import pytest

from tap_vero_segment import times
from tap_vero_segment.errors import SettingError
from tap_vero_segment.sources.open import SourceSettings, open_source
from tap_vero_segment.sources.store import StoreSource
from tap_vero_segment.stores.sqlite.integrity import call_check
from tests.support.payloads import many
from tests.support.store import fill
from tests.support.stored import stored, url_of

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


def ids(source: StoreSource, after: str | None = None, size: int = 10) -> list[str]:
    return [call.message_id for page in source.pages(after, size) for call in page.calls]


def ids_by_page(source: StoreSource, after: str | None, size: int) -> list[list[str]]:
    return [[call.message_id for call in page.calls] for page in source.pages(after, size)]


@pytest.mark.parametrize("size", [1, 7, 24, 25, 26, 1_000])
def test_pages_hold_everything_once_and_in_order(path: Path, size: int) -> None:
    expected = fill(path, many(25))
    with StoreSource(url_of(path)) as source:
        pages = ids_by_page(source, None, size)
    assert pages == [expected[start : start + size] for start in range(0, len(expected), size)]


def test_reading_goes_on_strictly_after_the_cursor(path: Path) -> None:
    fill(path, many(25))
    events = stored(path)
    with StoreSource(url_of(path)) as source:
        for position, event in enumerate(events):
            expected = [later.id for later in events[position + 1 :]]
            assert ids(source, event.loaded_at) == expected
        assert ids(source, "2999-01-01T00:00:00.000000Z") == []


def test_an_empty_store_has_no_page(path: Path) -> None:
    fill(path, [])
    with StoreSource(url_of(path)) as source:
        fill(path, many(3))
        assert ids(source) == []


def test_opening_fixes_how_far_reading_goes(path: Path) -> None:
    payloads = many(30)
    expected = fill(path, payloads[:20])
    with StoreSource(url_of(path)) as source:
        pages = source.pages(None, 10)
        first = next(pages)
        fill(path, payloads[20:])
        rest = list(pages)
        assert [call.message_id for page in (first, *rest) for call in page.calls] == expected
        assert ids(source, size=100) == expected


def test_events_that_were_deleted_leave_no_trace(path: Path) -> None:
    expected = fill(path, many(30))
    events = stored(path)
    with StoreSource(url_of(path)) as source:
        connection = apsw.Connection(str(path))
        connection.execute(
            "DELETE FROM events WHERE id IN (SELECT value FROM json_each(?))",
            ("[" + ",".join(f'"{event.id}"' for event in events[5:15] + events[-3:]) + "]",),
        )
        connection.close()
        assert ids(source) == expected[:5] + expected[15:-3]


@pytest.mark.parametrize(
    "call",
    [
        pytest.param(b'{"secret-of-the-body": ', id="cut-off"),
        pytest.param(b'{"type":"identify","messageId":"secret-of-the-body"}', id="no-track-call"),
        pytest.param(b'{"type":"track","messageId":7,"event":"secret-of-the-body"}', id="no-text"),
        pytest.param(b'{"type":"track","event":"\xff secret-of-the-body"}', id="no-utf-8"),
    ],
)
def test_a_line_that_is_no_track_call_is_named_and_not_repeated(path: Path, call: bytes) -> None:
    fill(path, many(5))
    third = stored(path)[2]
    connection = apsw.Connection(str(path))
    check = call_check(times.from_text(third.loaded_at), call)
    connection.execute(
        "UPDATE events SET call = ?, call_check = ? WHERE id = ?", (call, check, third.id)
    )
    connection.close()
    with StoreSource(url_of(path)) as source, pytest.raises(SettingError) as told:
        list(source.pages(None, 10))
    assert told.value.setting == "source"
    assert "line 3 is no track call" in str(told.value)
    assert "secret" not in str(told.value)


def test_a_store_that_breaks_while_it_is_read_is_told_as_such(path: Path) -> None:
    fill(path, many(5_000))
    with StoreSource(url_of(path)) as source:
        pages = source.pages(None, 10)
        next(pages)
        with path.open("r+b") as file:
            file.seek(8192)
            file.write(b"\xa5" * (path.stat().st_size - 8192))
        with pytest.raises(SettingError, match=r"^source: the store cannot be read"):
            list(pages)


def test_a_store_that_is_written_all_the_while_is_read_without_waiting(path: Path) -> None:
    fill(path, many(5))
    writing = apsw.Connection(str(path))
    writing.execute("BEGIN IMMEDIATE")
    with open_source(SourceSettings(url_of(path))) as source:
        assert sum(len(page.calls) for page in source.pages(None, 2)) == 5
    writing.execute("ROLLBACK")
    writing.close()
