"""SQL that people have for Segment's tables, on ours with the views of the pages."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from tap_vero_segment.collection import BY_EVENT, BY_STREAM, SEGMENT_COLUMNS
from tap_vero_segment.inputs.body import read_object
from tap_vero_segment.inputs.vero import to_track
from tap_vero_segment.record import to_row
from tap_vero_segment.times import from_text
from tests.support import docs
from tests.support.duckdb_loading import Warehouse
from tests.support.funnel import DuckDB, PostgreSQL, load
from tests.support.inline_tap import sync_inline
from tests.support.payloads import EMAIL_TYPES, STREAM_OF, documented
from tests.support.store import fill
from tests.support.stored import url_of

if TYPE_CHECKING:
    from pathlib import Path

RECENT, NUMBERS = docs.blocks("reports/segment-sql.md", "sql")
(CLICKED,) = docs.blocks("reports/clicked-links.md", "sql")
TABLES = [STREAM_OF[kind] for kind in EMAIL_TYPES]
NOW = datetime.now(UTC).replace(microsecond=0)
LOOKER = (
    "id, received_at, uuid_ts, uuid, original_timestamp, sent_at, timestamp, event, event_text,"
    " user_id, anonymous_id, context_ip, context_library_name, context_library_version,"
    " context_integration_name, context_integration_version, context_traits_email,"
    " context_user_agent, email, subject"
)


def wide(payload: dict[str, Any], received: datetime) -> dict[str, Any]:
    """A record with Segment's further columns."""
    at = f"{received:%Y-%m-%dT%H:%M:%S}.000000Z"
    call = to_track(read_object(json.dumps(payload).encode()), from_text(at))
    call.loaded_at = at
    return to_row(call, BY_EVENT[call.event], segment_columns=True).record()


def payload(kind: str, at: datetime, **fields: Any) -> dict[str, Any]:
    return documented(kind) | {f"{kind}_at": int(at.timestamp())} | fields


@pytest.fixture
def tables(warehouse: DuckDB | PostgreSQL) -> DuckDB | PostgreSQL:
    """Every table, with one event of today, and two opens of earlier times, one of them twice."""
    records = [wide(payload(kind, NOW), NOW) for kind in EMAIL_TYPES]
    for days in (59, 61):
        then = NOW - timedelta(days=days)
        records.append(wide(payload("opened", then, message_id=f"m{days}"), then))
    odd = payload("opened", NOW, message_id="odd")
    odd["campaign"]["id"] = "spring-1"
    huge = payload("opened", NOW, message_id="huge")
    huge["campaign"]["id"] = 2**63 - 1
    larger = payload("opened", NOW, message_id="larger")
    larger["campaign"]["id"] = str(2**63)
    records += [wide(each, NOW) for each in (odd, huge, larger)]
    load(warehouse, [*records, *records[-4:]], segment_columns=True)
    return warehouse


def own_view(table: str) -> str:
    """The page's view for another table, with the columns that the page says to add."""
    own = [column.name for column in BY_STREAM[table].columns]
    further = "".join(f", {name}" for name in own)
    view = NUMBERS.replace("email_opened", table).replace("properties\n", f"properties{further}\n")
    if table != "email_opened":
        view = view.partition(";")[2]
    if own:
        row = next(
            line
            for line in docs.PAGES["reports/segment-sql.md"].splitlines()
            if line.startswith(f"| `{table}`")
        )
        assert [name for name in own if f"`{name}`" in row] == own
    return view


def test_the_queries_that_people_have_run(tables):
    if isinstance(tables, PostgreSQL):
        tables.set_timezone("UTC")
    for table in ("email_opened", *(each for each in TABLES if each != "email_opened")):
        for statement in own_view(table).split(";"):
            tables.run(statement)
        (row,) = tables.run(f"SELECT {LOOKER} FROM vero_numbers.{table} WHERE uuid IS NOT NULL"
                            " ORDER BY sent_at DESC LIMIT 1")  # fmt: skip
        assert len(row) == 20

    def numbers(condition: str) -> int:
        statement = f"SELECT COUNT(DISTINCT id) FROM vero_numbers.email_opened WHERE {condition}"
        return tables.run(statement)[0][0]

    assert numbers("campaign_id = 987") == 3
    assert numbers(f"campaign_id = {2**63 - 1}") == 1
    assert numbers("campaign_id IS NULL") == 2

    days = tables.run(
        "SELECT DATE(sent_at) AS day, COUNT(*) FROM vero.email_opened"
        f" WHERE sent_at >= '{NOW - timedelta(days=60):%Y-%m-%d}' GROUP BY day ORDER BY day"
    )
    assert [day for day, _ in days] == [(NOW - timedelta(days=59)).date(), NOW.date()]
    older = "(SELECT MIN(uuid_ts) FROM vero.email_opened)"
    newer = f"SELECT COUNT(*) FROM vero.email_sent WHERE uuid_ts > {older}"
    assert tables.run(newer) == [(1,)]
    for key, table in (
        ("email_id", "vero.email_opened"),
        ("message_id", "vero_numbers.email_opened"),
    ):
        joined = tables.run(
            f"SELECT COUNT(DISTINCT o.id) FROM vero.email_sent AS s JOIN {table} AS o"
            f" ON o.{key} = s.email_id"
        )
        assert joined == [(1,)]
    within = (
        "SELECT COUNT(*) FROM vero.email_link_clicked AS click"
        " JOIN vero.email_unsubscribed AS left_by ON left_by.user_id = click.user_id WHERE "
    )
    assert tables.run(f"{within} left_by.timestamp <= click.timestamp + INTERVAL '24' HOUR") == [
        (1,)
    ]
    if isinstance(tables, DuckDB):
        assert tables.run(
            f"{within} DATEDIFF('hour', click.timestamp, left_by.timestamp) <= 24"
        ) == [(1,)]
    # PostgreSQL's columns have a time zone here, as some loaders make them.
    local = "" if isinstance(tables, PostgreSQL) else "AT TIME ZONE 'UTC'"
    hours = tables.run(
        f"SELECT DISTINCT EXTRACT(HOUR FROM original_timestamp {local} AT TIME ZONE 'Asia/Tokyo')"
        " FROM vero.email_sent"
    )
    assert [int(hour) for (hour,) in hours] == [(NOW.hour + 9) % 24]


@pytest.mark.parametrize("zone", ["Pacific/Auckland", "Pacific/Honolulu"])
def test_a_view_of_sixty_days_has_each_event_once(tables, zone):
    if isinstance(tables, PostgreSQL):
        tables.set_timezone(zone)
    tables.run(RECENT)
    rows = tables.run("SELECT id, received_at FROM vero.email_opened_view")
    assert len(rows) == len({number for number, _ in rows}) == 5
    assert len(tables.run("SELECT 1 FROM vero.email_opened")) == 10


def test_the_views_hold_for_tables_that_the_tap_has_loaded(tmp_path: Path) -> None:
    fill(tmp_path / "store.db", [payload(kind, NOW) for kind in EMAIL_TYPES])
    source = {"source": url_of(tmp_path / "store.db"), "segment_columns": True}
    messages = sync_inline(source)
    loaded = Warehouse(tmp_path / "warehouse.duckdb", default_target_schema="vero")
    loaded.load(json.dumps(each).encode() + b"\n" for each in messages.all)
    for table in ("email_opened", *(each for each in TABLES if each != "email_opened")):
        for statement in own_view(table).split(";"):
            loaded.query(statement)
        loaded.query(RECENT.replace("email_opened", table))
        (row,) = loaded.query(f"SELECT {LOOKER}, campaign_id FROM vero_numbers.{table}")
        assert row[-1] == (None if table == "email_unsubscribed" else 987)
        assert loaded.query(f"SELECT COUNT(*) FROM vero.{table}_view") == [(1,)]
    loaded.query(RECENT.replace("email_opened", "tracks"))
    assert loaded.query("SELECT COUNT(*) FROM vero.tracks_view") == [(len(EMAIL_TYPES),)]
    names = ", ".join(column.name for column in SEGMENT_COLUMNS)
    assert len(loaded.query(f"SELECT {names} FROM vero.tracks")) == len(EMAIL_TYPES)


def test_a_page_view_says_which_link_was_clicked(warehouse):
    def click(second: int, user: Any, name: str, variation: str | None = "A") -> dict[str, Any]:
        campaign = {"id": 1, "name": name, "variation": variation}
        at = NOW + timedelta(seconds=second)
        return wide(payload("clicked", at, user={"id": user}, campaign=campaign, n=second), at)

    clicks = [
        click(0, 1, "Autumn"),
        click(60, 1, "Autumn"),
        click(60, 1, "Winter"),
        click(0, 2, "Autumn", None),
    ]
    load(warehouse, clicks, segment_columns=True)
    base = "https://shop.example"
    vero = "utm_source=vero&vero_conv=abc"
    views = [
        ("first", 1, f"{base}/a?{vero}&vero_id=1#top", "vero", "Autumn", "A", None),
        ("second", 61, f"{base}/b?vero_id=1&{vero}", "vero", "Autumn", "A", "7"),
        ("early", -3, f"{base}/c?{vero}", "vero", "Autumn", "B", "2"),
        ("bare", 5, f"{base}/d?vero_conv=x&vero_id=2", None, None, None, None),
        ("late", 3_600, f"{base}/e?{vero}&vero_id=2", "vero", "Autumn", "A", None),
        ("other variation", 62, f"{base}/f?{vero}&vero_id=1", "vero", "Autumn", "B", None),
        ("not ours", 61, f"{base}/g", "google", None, None, "1"),
    ]
    warehouse.run("CREATE SCHEMA web")
    warehouse.run(
        f"CREATE TABLE web.pages (id VARCHAR, timestamp {warehouse.types['time']}, url VARCHAR,"
        " context_campaign_source VARCHAR, context_campaign_name VARCHAR,"
        " context_campaign_term VARCHAR, user_id VARCHAR)"
    )
    values = [
        [number, f"{NOW + timedelta(seconds=second):%Y-%m-%dT%H:%M:%SZ}", *rest]
        for number, second, *rest in views
    ]
    marks = ", ".join([warehouse.placeholder] * 7)
    warehouse.write([], {f"INSERT INTO web.pages VALUES ({marks})": values})

    found = {row[0]: (row[2], row[3]) for row in warehouse.run(CLICKED)}

    first, second, _, other = (each["id"] for each in clicks)
    assert found == {
        "first": (f"{base}/a", first),
        "second": (f"{base}/b", second),
        "early": (f"{base}/c", other),
        "bare": (f"{base}/d", other),
    }
