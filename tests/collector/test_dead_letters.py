"""``vero-collector dead-letters``: what was quarantined, shown, and read again after an upgrade."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import hashlib
import hmac
import json
import random
import shutil
import subprocess
import time
from collections import Counter
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import apsw
import pytest
import requests

from tap_vero_segment import times
from tap_vero_segment.collector.commands.replay import replay
from tap_vero_segment.collector.redaction import readable
from tap_vero_segment.inputs import intake as inputs
from tap_vero_segment.inputs.intake import (
    READ_AGAIN,
    read_tracked_again,
    read_vero,
)
from tap_vero_segment.stores.base import DeadLetter, StoreBusyError
from tap_vero_segment.stores.open import open_reader, open_writer
from tap_vero_segment.stores.sqlite.reader import SqliteReader
from tap_vero_segment.stores.sqlite.writer import SqliteWriter
from tests.support.archived import killed_when
from tests.support.collector import (
    READ_TOKEN,
    SECRETS,
    SEGMENT_SECRET,
    WEBHOOK_TOKEN,
    WRITE_KEY,
    Collector,
    clean_environment,
    collector_command,
    run_collector,
)
from tests.support.leaks import FRAGMENT, assert_tells_nothing
from tests.support.load import Load
from tests.support.older import NEWER, older_release
from tests.support.payloads import documented, many
from tests.support.stored import lines_of, url_of
from tests.support.tap import run_tap
from tests.support.watching import Visitor

if TYPE_CHECKING:
    from pathlib import Path

    from tap_vero_segment.stores.base import KeptDeadLetter

HALF = b"\\ud83d"
"""Half of an emoji, of which the earlier release made nothing."""

NOW = times.from_text("2026-11-23T09:24:00Z")


def nested(levels: int) -> Any:
    value: Any = "bottom"
    for _ in range(levels):
        value = [value]
    return value


def call(name: str, event: str = "Email Sent", **fields: Any) -> dict[str, Any]:
    return {
        "type": "track",
        "event": event,
        "messageId": name,
        "userId": FRAGMENT,
        "timestamp": "2026-11-23T09:24:00.000Z",
        "receivedAt": "2026-11-23T09:24:01.250Z",
    } | fields


def halved(value: Any) -> bytes:
    """JSON with half of an emoji in it."""
    return json.dumps(value).replace("HALF", HALF.decode()).encode()


UNTYPED = call("untyped", properties={"subject": "HALF"})
del UNTYPED["type"]
BATCH = {
    "sentAt": "2026-11-23T09:24:05.000Z",
    "context": {"library": {"name": "of the batch"}},
    "batch": [
        call("readable"),
        call("newer", properties={NEWER: 1}),
        call("", properties={NEWER: 2}),
        call("other", event="Order Completed"),
    ],
}
ARRAY = [
    call("first", properties={"a": "HALF"}),
    call("too deep", properties={"a": nested(100)}),
    call("unrelated", event="Order Completed"),
    call("last"),
]

# What came: where, the body, whether it is of use today.
VERO = [
    (json.dumps(documented("complained") | {"note": FRAGMENT}).encode(), True),
    (json.dumps({"type": "teleported", "user": {"email": "a@example.com"}}).encode(), False),
    (json.dumps(documented("sent") | {"deep": nested(50)}).encode(), True),
    (json.dumps(documented("sent") | {"deep": nested(150)}).encode(), False),
    (halved(documented("opened") | {"subject": "HALF"}), True),
    (b"\x1b]0;not JSON\x07 \xff\xc2\x9b2J" + FRAGMENT.encode(), False),
]
TRACKING = [
    ("/v1/batch", json.dumps(BATCH).encode()),
    ("/v1/track", halved(UNTYPED)),
    ("/v1/batch", halved({"batch": [call("of a batch"), call("HALF"), call("x", event="y")]})),
    ("/v1/identify", halved({"userId": "HALF"})),
]
SEGMENT = [json.dumps(call("signed", properties={NEWER: 3})).encode(), halved(ARRAY)]


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store as the earlier release has left it."""
    folder = tmp_path_factory.mktemp("older")
    with Collector(folder, older_release(folder / "release")) as collector:
        collector.post(documented("delivered"))
        for body, _ in VERO:
            collector.post(body)
        for path, body in TRACKING:
            requests.post(collector.url + path, body, auth=(WRITE_KEY, ""), timeout=30)
        for body in SEGMENT:
            signature = hmac.new(SEGMENT_SECRET.encode(), body, hashlib.sha1).hexdigest()
            requests.post(
                f"{collector.url}/segment", body, headers={"X-Signature": signature}, timeout=30
            )
    assert_tells_nothing(collector.log())
    return collector.store


@pytest.fixture
def store(left: Path, tmp_path: Path) -> Path:
    for file in (left, left.with_name(f"{left.name}-mark")):
        shutil.copy(file, tmp_path)
    return tmp_path / left.name


def letters(store: Path) -> list[KeptDeadLetter]:
    with SqliteReader(url_of(store), "store") as reader:
        return reader.dead_letters(0, 10_000)


def run(store: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_collector("dead-letters", *arguments, "--store", url_of(store), cwd=store.parent)


def good(store: Path, *arguments: str) -> str:
    done = run(store, *arguments)
    assert (done.returncode, complaints_of(done)) == (0, [])
    return done.stdout


def complaints_of(done: subprocess.CompletedProcess[str]) -> list[str]:
    """What it said beside the progress, which shows where the machine is slow."""
    return [line for line in done.stderr.splitlines() if " INFO replaying: " not in line]


def calls_of(store: Path) -> dict[str, dict[str, Any]]:
    calls = [json.loads(line) for line in lines_of(store)]
    found = {call["messageId"]: call for call in calls}
    assert len(found) == len(calls)
    return found


# Replay


def test_what_an_earlier_release_has_quarantined_comes_out_of_the_tap(store, tmp_path):
    before, kept = calls_of(store), letters(store)
    assert len(kept) == len(VERO) + 2 + (len(TRACKING) - 1) + len(SEGMENT)
    config = {"source": url_of(store)}
    bookmarked = run_tap(tmp_path, config)
    assert len(bookmarked.messages.ids()) == len(before) == 2

    said = good(store, "replay")

    mended = {name: call for name, call in calls_of(store).items() if name not in before}
    wanted = {}
    for letter in (each.letter for each in kept):
        try:
            calls = READ_AGAIN[letter.input](letter.body, letter.received_at)
        except Exception:  # noqa: BLE001  # it stays
            continue
        wanted |= {event.id: json.loads(event.call) for event in calls.events}
    assert {name: mended[name] | {"loadedAt": None} for name in mended} == {
        name: wanted[name] | {"loadedAt": None} for name in wanted
    }
    assert {"newer", "untyped", "of a batch", "�", "signed", "first", "last"} < mended.keys()
    assert len(mended) == 3 + 5 + 3
    for before_call in before.values():
        assert all(call["loadedAt"] > before_call["loadedAt"] for call in mended.values())

    stay = letters(store)
    assert [each.letter.body for each in stay][:3] == [body for body, use in VERO if not use]
    [bad] = stay[3:]  # the one call of the array that cannot be mapped today either
    assert json.loads(bad.letter.body) == ARRAY[1]
    assert bad.letter.received_at == kept[-1].letter.received_at
    assert said.splitlines() == [
        f"dead letters read again: {len(kept) + 1}, of which 4 stay",
        "new events: 11",
        "events that were stored already: 0",
        "ignored calls (not Vero events): 3",
        "stay: 2 (nested deeper than 100 levels)",
        "stay: 1 (a type that Vero does not document)",
        "stay: 1 (not JSON)",
    ]

    again = run_tap(tmp_path, config, state=bookmarked.messages.state)
    assert sorted(again.messages.ids()) == sorted(mended)


def test_a_mended_event_is_what_today_s_collector_would_have_made_of_it(store, tmp_path):
    kept = letters(store)
    good(store, "replay")
    found = calls_of(store)

    def assert_stored(calls: Any) -> None:
        for event in calls.events:
            assert json.loads(event.call) == {
                key: value for key, value in found[event.id].items() if key != "loadedAt"
            }

    whole = json.dumps(BATCH).encode()
    received_at = next(
        each.letter.received_at for each in kept if each.letter.input == inputs.TRACKING
    )
    # A call that was quarantined apart has kept what its batch says for it, and its id with it.
    calls = read_tracked_again(whole, received_at)
    assert len(calls.events) == 3
    assert_stored(calls)
    assert {found[event.id]["sentAt"] for event in calls.events} == {"2026-11-23T09:24:05.000000Z"}
    for body, use in VERO:
        if use:
            [letter] = [each.letter for each in kept if each.letter.body == body]
            assert_stored(READ_AGAIN[inputs.VERO](body, letter.received_at))
    with apsw.Connection(str(store)) as opened:
        rows = opened.execute("SELECT input, received_at, body FROM events").fetchall()
    arrivals = {each.letter.received_at for each in kept}
    # Segment says itself when it received a call.
    assert {at for came_in, at, _ in rows[2:] if came_in != inputs.SEGMENT} <= arrivals
    assert {body for source, _, body in rows if source == inputs.VERO} == {
        json.dumps(documented("delivered")).encode(),
        *(body for body, use in VERO if use),
    }
    assert found["signed"]["receivedAt"] == "2026-11-23T09:24:01.250000Z"
    assert inputs.SEGMENT in {source for source, *_ in rows}


def test_a_second_replay_changes_nothing(store):
    good(store, "replay")
    before = lines_of(store), letters(store)

    said = good(store, "replay").splitlines()

    assert said[:2] == ["dead letters read again: 4, of which 4 stay", "new events: 0"]
    assert (lines_of(store), letters(store)) == before


def test_only_the_letters_that_are_named_are_read(store):
    before = letters(store)

    said = good(store, "replay", "3", "1", "3").splitlines()

    assert said[:2] == ["dead letters read again: 2, of which 0 stay", "new events: 2"]
    assert letters(store) == [each for each in before if each.number not in {1, 3}]


def test_of_numbers_that_are_not_all_there_none_is_read(store):
    before = letters(store)

    done = run(store, "replay", "3", "999", "1", "998")

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "vero-collector: there is no dead letter 998, 999, so nothing was done\n"
    assert letters(store) == before


def test_an_event_that_has_come_again_since_is_stored_once(store):
    payload = json.loads(VERO[0][0])
    with Collector(store.parent) as collector:
        collector.post(payload)
    before = lines_of(store)

    said = good(store, "replay", "1").splitlines()

    assert said[1:3] == ["new events: 0", "events that were stored already: 1"]
    assert lines_of(store) == before
    assert 1 not in [each.number for each in letters(store)]


def test_a_letter_of_an_unknown_input_stays(store):
    writer = SqliteWriter(url_of(store), "store")
    writer.write([], [DeadLetter(NOW, "pigeon", "not JSON", b"{}")])
    writer.close()
    [*_, kept] = letters(store)

    said = good(store, "replay", str(kept.number))

    assert "stay: 1 (it came in by what this release does not know)" in said
    assert letters(store)[-1] == kept


def test_a_letter_that_the_store_refuses_does_not_cost_the_others(store):
    with apsw.Connection(str(store)) as opened:
        opened.execute(
            "CREATE TRIGGER refuse BEFORE INSERT ON events WHEN NEW.id = 'untyped' "
            "BEGIN SELECT RAISE(ABORT, 'refused'); END"
        )

    said = good(store, "replay")

    assert "new events: 10" in said
    assert "stay: 1 (the store does not take it: ConstraintError: refused)" in said
    [kept] = [each for each in letters(store) if b"untyped" in each.letter.body]
    assert kept.letter.body == halved(UNTYPED)


def test_a_letter_of_good_and_bad_calls_loses_nothing_broken_off_anywhere(store, monkeypatch):
    [*_, mixed] = letters(store)
    resolve = SqliteWriter.resolve

    def broken_off(self: SqliteWriter, *arguments: Any) -> int:
        raise StoreBusyError

    monkeypatch.setattr(SqliteWriter, "resolve", broken_off)
    with pytest.raises(StoreBusyError):
        replay(url_of(store), [mixed.number])
    assert mixed in letters(store)
    assert {"first", "last"} < calls_of(store).keys()

    monkeypatch.setattr(SqliteWriter, "resolve", resolve)
    replay(url_of(store), [mixed.number])
    assert {"first", "last"} < calls_of(store).keys()
    [*_, left] = letters(store)
    assert json.loads(left.letter.body) == ARRAY[1]
    assert mixed not in letters(store)


def complaints(count: int) -> list[DeadLetter]:
    return [
        DeadLetter(
            NOW + number,
            inputs.VERO,
            "a type that Vero does not document",
            json.dumps(documented("complained") | {"user": {"id": number}}).encode(),
        )
        for number in range(count)
    ]


def test_killed_at_any_point_it_goes_on_where_it_was(tmp_path):
    store, chance = tmp_path / "vero-events.db", random.Random(4)
    everything = complaints(600)
    writer = SqliteWriter(url_of(store), "store")
    writer.write([], everything)
    writer.close()
    ids = {letter.body: read_vero(letter.body, letter.received_at).id for letter in everything}
    killed = 0
    for _ in range(5):
        before = len(letters(store))
        most = before - chance.randint(1, 100)
        with SqliteReader(url_of(store), "store") as reader:
            killed += killed_when(
                tmp_path,
                lambda reader=reader, most=most: reader.summary().dead_letters <= most,
                *("dead-letters", "replay", "--store", url_of(store)),
            )
        left = {each.letter.body for each in letters(store)}
        assert set(calls_of(store)) == {ids[body] for body in ids.keys() - left}
    assert killed >= 3

    good(store, "replay")

    assert letters(store) == []
    assert sorted(calls_of(store)) == sorted(ids.values())


def test_letters_are_deleted_by_their_numbers(store):
    before = letters(store)

    for refused in ([], ["3", "--all"], ["--reason", "not JSON", "--all"]):
        assert run(store, "delete", *refused, "--yes").returncode == 2
    done = run(store, "delete", "3")  # nobody can be asked
    assert (done.returncode, done.stdout) == (1, "")
    assert "add --yes" in done.stderr
    assert letters(store) == before
    assert good(store, "delete", "3", "1", "3", "--yes") == "dead letters deleted: 2 (1, 3)\n"

    assert letters(store) == [each for each in before if each.number not in {1, 3}]


def test_of_numbers_that_are_not_all_there_none_is_deleted(store):
    before = letters(store)

    done = run(store, "delete", "2", "999", "--yes")

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "vero-collector: there is no dead letter 999, so nothing was done\n"
    assert letters(store) == before


def test_those_of_one_reason_are_deleted_or_replayed(store):
    before = letters(store)
    counts = Counter(each.letter.reason for each in before)
    listed = [
        json.loads(line) for line in good(store, "list", "--by-reason", "--json").splitlines()
    ]
    assert {each["reason"]: each["dead_letters"] for each in listed} == counts
    [header, *rows] = good(store, "list", "--by-reason").splitlines()
    assert header.split() == ["dead_letters", "oldest", "newest", "reason"]
    assert len(rows) == len(counts) > 2

    for command in (["delete", "--yes"], ["replay"]):
        done = run(store, *command, "--reason", "not a reason")
        assert (done.returncode, done.stdout) == (1, "")
        assert "there is no dead letter of that reason" in done.stderr
    said = good(store, "delete", "--reason", "not JSON", "--yes")
    assert said == f"dead letters deleted: {counts['not JSON']}\n"
    left = [each for each in before if each.letter.reason != "not JSON"]
    assert letters(store) == left
    one = left[0].letter.reason
    said = good(store, "replay", "--reason", one)
    assert said.startswith(f"dead letters read again: {counts[one]},")
    assert [each for each in left if each.letter.reason != one] == [
        each for each in letters(store) if each.letter.reason != one
    ]

    left = letters(store)
    assert good(store, "delete", "--all", "--yes") == f"dead letters deleted: {len(left)}\n"
    assert letters(store) == []
    deleted = counts["not JSON"] + len(left)
    done = run_collector("status", "--json", "--store", url_of(store), cwd=store.parent)
    assert json.loads(done.stdout)["deleted_dead_letters"] == deleted


def test_letters_of_the_shared_store_are_replayed_likewise(database, tmp_path):
    with contextlib.closing(open_writer(database, "store")) as writer:
        writer.write([], [*complaints(30), DeadLetter(NOW, "vero", "not JSON", b"nonsense")])

    def run_there(*arguments: str) -> list[str]:
        done = run_collector("dead-letters", *arguments, "--store", database, cwd=tmp_path)
        assert (done.returncode, complaints_of(done)) == (0, [])
        return done.stdout.splitlines()

    assert len(run_there("list", "--json")) == 31
    said = run_there("replay")
    assert said[:2] == ["dead letters read again: 31, of which 1 stay", "new events: 30"]
    [left] = map(json.loads, run_there("list", "--json"))
    assert run_there("show", str(left["number"]))[-1] == "nonsense"
    number = left["number"]
    assert run_there("delete", str(number), "--yes") == [f"dead letters deleted: 1 ({number})"]
    assert run_there("list", "--json") == []
    with open_reader(database, "store") as reader:
        assert len(reader.lines(0, None, 100)) == 30


def test_it_runs_beside_a_collector(collector: Collector):
    writer = SqliteWriter(collector.store_url, "store")
    writer.write([], complaints(600))
    writer.close()
    load = Load(collector.url, iter(many(1_500)))

    async def both() -> str:
        async with asyncio.TaskGroup() as group:
            posting = group.create_task(load.run())
            await load.until_acknowledged(50)
            said = await asyncio.to_thread(good, collector.store, "replay")
            await posting
        return said

    assert "new events: 600" in asyncio.run(both())
    assert (load.refused, load.unanswered, len(load.acknowledged)) == ([], [], 1_500)
    assert len(calls_of(collector.store)) == 2_100


# List and show


def test_the_list_has_every_letter_and_no_body(store):
    writer = SqliteWriter(url_of(store), "store")
    writer.write([], complaints(50))
    writer.close()
    kept = letters(store)

    listed, told = good(store, "list"), good(store, "list", "--json")

    assert [json.loads(line) for line in told.splitlines()] == [
        {
            "number": each.number,
            "received_at": times.to_text(each.letter.received_at),
            "input": each.letter.input,
            "bytes": len(each.letter.body),
            "reason": each.letter.reason,
        }
        for each in kept
    ]
    header, *rows = listed.splitlines()
    assert header.split() == ["number", "received_at", "input", "bytes", "reason"]
    assert [row.split(maxsplit=4) for row in rows] == [
        [str(value) for value in json.loads(line).values()] for line in told.splitlines()
    ]
    assert_tells_nothing(listed + told)


def test_an_empty_list_is_no_error(tmp_path):
    SqliteWriter(url_of(tmp_path / "vero-events.db"), "store").close()

    assert good(tmp_path / "vero-events.db", "list", "--json") == ""


def test_a_letter_is_shown_so_that_it_can_be_read(store):
    kept = letters(store)[0]

    facts, _, body = good(store, "show", str(kept.number)).partition("\n\n")

    assert facts.splitlines() == [
        "number: 1",
        f"received_at: {times.to_text(kept.letter.received_at)}",
        "input: vero",
        f"bytes: {len(kept.letter.body)}",
        "reason: a type that Vero does not document",
    ]
    assert body == json.dumps(json.loads(kept.letter.body), indent=2) + "\n"


def test_a_terminal_obeys_nothing_of_what_is_shown(store):
    bodies = [
        VERO[-1][0],
        '{"a": "\x7f \x9b2J \u202e \u2028", "b": "é 漢"}'.encode(),
        b"\r\x00[31m",
        b"[" * 100_000,
        halved({"a": "HALF"}),
    ]
    writer = SqliteWriter(url_of(store), "store")
    writer.write([], [DeadLetter(NOW, "vero", "not JSON", body) for body in bodies])
    writer.close()
    shown = ""
    for body in bodies:
        kept = next(each for each in letters(store) if each.letter.body == body)
        shown += good(store, "show", str(kept.number))
        raw = subprocess.run(
            collector_command(
                "dead-letters", "show", str(kept.number), "--raw", "--store", url_of(store)
            ),
            cwd=store.parent,
            env=clean_environment(),
            capture_output=True,
            check=True,
        )
        assert raw.stdout == body

    assert all(each.isprintable() or each == "\n" for each in shown)
    for written in (
        r"\x1b]0;not JSON\x07",
        r"\x7f",
        r"\x9b2J",
        r"\u202e \u2028",
        "é 漢",
        r"\r\x00",
    ):
        assert written in shown


@pytest.mark.parametrize(
    ("arguments", "status"),
    [(["show", "999"], 1), (["show", "999", "--raw"], 1), (["show", "x"], 2), (["show", "0"], 2)],
)
def test_a_number_of_no_letter_is_told(store, arguments, status):
    done = run(store, *arguments)

    assert (done.returncode, done.stdout) == (status, "")
    assert arguments[1] in done.stderr
    assert status == 2 or len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments", [["list"], ["show", "1"], ["replay"], ["delete", "1", "--yes"]]
)
def test_where_there_is_no_store_it_says_so_and_makes_none(tmp_path, arguments):
    done = run_collector("dead-letters", *arguments, cwd=tmp_path)

    assert (done.returncode, done.stdout) == (1, "")
    [line] = done.stderr.splitlines()
    assert "store: " in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "body",
    [
        json.dumps(call("deep", a=nested(101), writeKey=WRITE_KEY)),
        json.dumps({"batch": [call("deep", a=nested(101), context={"writeKey": WRITE_KEY})]}),
        f'{{"writeKey": "{WRITE_KEY}", "batch": [',
        f'{{"writeKey": "{WRITE_KEY}',
        f"{{'writeKey': '{WRITE_KEY}'}}",
        f"writeKey={WRITE_KEY}&event=x",
        json.dumps(json.dumps({"writeKey": WRITE_KEY})),
    ],
    ids=lambda body: body[:24],
)
def test_a_write_key_in_a_body_is_shown_to_nobody(tmp_path, body):
    with Collector(tmp_path) as collector:
        path = "/v1/batch" if "batch" in body else "/v1/track"
        requests.post(collector.url + path, body, auth=(WRITE_KEY, ""), timeout=30)
        page = Visitor(collector).log_in().see("/dead-letter/1").text
    told = good(collector.store, "show", "1")

    for shown in (told, page):
        assert "writeKey" in shown
        assert "…" in shown
        assert WRITE_KEY not in shown
    assert WRITE_KEY in good(collector.store, "show", "1", "--raw")


KEY = "kEy-of/others_1"
NAMES = ["write\\u004bey", "WriteKey", "write_key", "WRITE-KEY", "write\u212aey", "\\u0077riteKey"]
SPELT = {
    **{name: f'{{"a":[{{"{name}":"{KEY}"}}]}}' for name in NAMES},
    "array": json.dumps({"writeKey": [KEY, [KEY]], "b": 1}),
    "object": json.dumps({"writeKey": {"a": {"b": KEY}, "c": KEY}, "b": 1}),
    "percent": quote(json.dumps({"writeKey": KEY})),
    "percent, twice": "payload=" + quote(quote(json.dumps({"writeKey": [KEY]}))),
    "percent in JSON": json.dumps({"payload": quote(json.dumps({"write_key": KEY}))}),
    "JSON in JSON in JSON": json.dumps(json.dumps(json.dumps({"writeKey": [KEY]}))),
    "cut": '{"batch":[{"write\\u004bey":["' + KEY,
    "form": f"write%4bey={KEY}",
    "UTF-16": json.dumps({"writeKey": KEY}).encode("utf-16").decode("latin-1"),
}


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("body", SPELT.values(), ids=map(ascii, SPELT))
def test_a_write_key_is_not_shown_however_it_is_spelt(body, zipped):
    body = body.encode("latin-1" if "\xff" in body else "utf-8")
    shown = readable(gzip.compress(body) if zipped else body, [])
    assert "…" in shown
    for encoded in (KEY, quote(KEY, safe=""), "\0".join(KEY)):
        assert encoded not in shown


ESCAPED = "".join(f"\\u{ord(each):04x}" for each in KEY)


@pytest.mark.parametrize(
    "body",
    [f'{{"a":["{KEY}"]}}', f'["{ESCAPED}"]', f"a={quote(KEY, safe='')}", f"GET /vero/{KEY}", KEY],
)
def test_no_other_secret_is_shown_either(body):
    shown = readable(body.encode(), ["another", KEY])
    assert "…" in shown
    for encoded in (KEY, quote(KEY, safe=""), ESCAPED):
        assert encoded not in shown


@pytest.mark.parametrize(
    "unit", ["\\", "%25", "%22", "writekey", "writekey:[", 'writekey:"', "\\u00"]
)
def test_no_body_takes_long_to_show(unit):
    started = time.thread_time()
    readable(unit.encode() * (512 * 1024 // len(unit)), [KEY] * 4)
    assert time.thread_time() - started < 3


def test_secrets_are_shown_neither_by_the_command_nor_on_the_page(tmp_path):
    with Collector(tmp_path) as collector:
        collector.post({"type": "unheard of", "note": [WEBHOOK_TOKEN, f"x{READ_TOKEN}"]})
        page = Visitor(collector).log_in().see("/dead-letter/1").text
        told = run_collector("dead-letters", "show", "1", cwd=tmp_path, env=SECRETS).stdout

    for shown in (told, page):
        assert shown.count("…") >= 2
        assert WEBHOOK_TOKEN not in shown
        assert READ_TOKEN not in shown


@pytest.mark.parametrize("input_name", ["vero", "tracking", "segment"])
def test_a_zipped_body_is_read_again(tmp_path, input_name):
    store = tmp_path / "vero-events.db"
    content = documented() if input_name == "vero" else call("zipped")
    body = gzip.compress(b"\xef\xbb\xbf" + json.dumps(content).encode())
    writer = SqliteWriter(url_of(store), "store")
    writer.write([], [DeadLetter(NOW, input_name, "not JSON", body)])
    writer.close()

    assert "new events: 1" in good(store, "replay")
