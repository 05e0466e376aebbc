"""``vero-collector import``: webhooks that were kept elsewhere become events of the store."""

from __future__ import annotations

import bz2
import gzip
import json
import random
import re
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tap_vero_segment import times
from tap_vero_segment.inputs.intake import read_vero
from tap_vero_segment.stores.open import open_reader, open_writer
from tests.support.archive_fixtures import no_cloud, s3
from tests.support.collector import clean_environment, collector_command, run_collector
from tests.support.history import EXACT, REBUILT, history, ids, write_csv, write_ndjson
from tests.support.payloads import documented, many
from tests.support.rounds import by_rounds, rounds
from tests.support.stored import every_line

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.support.history import Kept
    from tests.support.s3 import S3

__all__ = ["no_cloud", "s3"]

SHAPES = {**EXACT, **REBUILT}


@pytest.fixture
def store(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/store.db"


def bring(
    store: str,
    *arguments: object,
    status: int = 0,
    env: dict[str, str] | None = None,
    cwd: Any = ".",
) -> str:
    """Import files; return what was printed, errors last."""
    done = run_collector("import", "--store", store, *map(str, arguments), cwd=cwd, env=env)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def calls_of(store: str) -> list[dict[str, Any]]:
    with open_reader(store, "store") as reader:
        return [json.loads(line) for line in every_line(reader)]


def letters_of(store: str) -> list[Any]:
    with open_reader(store, "store") as reader:
        return [kept.letter for kept in reader.dead_letters(0, 100)]


def figure(printed: str, start: str) -> int:
    [line] = [line for line in printed.splitlines() if line.startswith(start)]
    return int(line.rpartition(": ")[2])


def deliver(store: str, kept: Kept) -> None:
    """Store what a collector would have received."""
    writer = open_writer(store, "store")
    events = [
        read_vero(json.dumps(payload).encode(), times.from_text(received))
        for payload, received in kept
    ]
    for start in range(0, len(events), 500):
        writer.write(events[start : start + 500], [])
    writer.close()


# Shapes


@pytest.mark.parametrize("name", SHAPES)
def test_each_shape_becomes_its_events_once(name, store, tmp_path):
    """Of which every other one was received as a webhook already."""
    kept = SHAPES[name](tmp_path / "kept", history(200))
    received = kept[::2]
    deliver(store, received)
    printed = bring(store, tmp_path / "kept", "--dry-run")
    assert figure(printed, "new events would be") == len(kept) - len(received)
    assert len(calls_of(store)) == len(received)

    printed = bring(store, tmp_path / "kept")
    assert figure(printed, "new events") == len(kept) - len(received)
    assert (figure(printed, "dead letters"), figure(printed, "ignored")) == (0, 0)
    calls = calls_of(store)
    assert sorted(call["receivedAt"] for call in calls) == sorted(at for _, at in kept)
    if name in EXACT:
        assert {call["messageId"] for call in calls} == {*ids(kept)}

    printed = bring(store, tmp_path / "kept")
    assert figure(printed, "new events") == 0
    assert figure(printed, "events that were stored already") == len(kept)
    assert len(calls_of(store)) == len(kept)


def test_two_kinds_of_tables_hold_the_same_events(store, tmp_path):
    kept = history(100)
    for name in ("stitch-csv", "table-csv", "snowplow-redshift-csv"):
        REBUILT[name](tmp_path / name, kept)
        bring(store, tmp_path / name)
    assert len(calls_of(store)) == len(kept)


def test_events_that_only_a_table_cannot_tell_from_others_are_kept_apart(store, tmp_path):
    """Same second, same person: what both say of the campaign differs."""
    one, other = documented("sent"), documented("sent")
    other["campaign"]["id"] = 988
    deliver(store, [(one, "2024-01-01T00:00:00.000000Z")])
    REBUILT["table-csv"](tmp_path / "kept", [(other, "2024-01-01T00:00:00.000000Z")])
    assert figure(bring(store, tmp_path / "kept"), "new events") == 1


@pytest.mark.parametrize(
    "record",
    [
        {"_sdc_received_at": "2024-01-01T00:00:00Z", "type": "bounced", "bounce_code__bi": 550,
         "bounce_code__st": None, "user__id__st": "7", "bounced_at": 1_700_000_000},
        {"TYPE": "bounced", "USER_ID": "7", "BOUNCE_CODE": "550", "MESSAGE_ID": "x",
         "EVENT_TIMESTAMP": "2023-11-14 22:13:20 UTC", "CREATED_AT": "2024-01-01 00:00:00.000 Z"},
        {"type": "bounced", "user.id": 7.0, "bounced_at": 1_700_000_000_000, "bounce_code": 550,
         "received_at": "2024-01-01 01:00:00 +0100"},
        {"payload": {"body": json.dumps({"type": "bounced", "user": {"id": 7}, "bounce_code": 550,
         "bounced_at": 1_700_000_000})}, "timestamp": 1_704_067_200_000},
        {"schema": "iglu:com.snowplowanalytics.snowplow/unstruct_event/jsonschema/1-0-0", "data": {
            "schema": "iglu:com.getvero/bounced/jsonschema/1-0-0",
            "data": {"bounced_at": "2023-11-14T22:13:20.000Z", "user": {"id": 7},
                     "bounce_code": "550"}}, "collector_tstamp": "2024-01-01"},
        {"body": json.dumps(json.dumps({"type": "bounced", "user": {"id": 7}, "bounce_code": 550,
         "bounced_at": 1_700_000_000})), "created_at": "2024-01-01T00:00Z"},
    ],
    ids=["stitch-split", "upper-case", "dots", "wrapped-twice", "snowplow-nested", "json-of-json"],
)  # fmt: skip
def test_spellings_of_one_event(record, store, tmp_path):
    write_ndjson(tmp_path / "kept", [record])
    bring(store, tmp_path / "kept")
    [call] = calls_of(store)
    assert (call["event"], call["userId"]) == ("Email Bounced", "7")
    assert call["timestamp"] == "2023-11-14T22:13:20.000000Z"
    assert call["receivedAt"] == "2024-01-01T00:00:00.000000Z"
    assert str(call["properties"]["bounce_code"]) == "550"


def test_fields_of_any_name(store, tmp_path):
    rows = [{"seen": "2024-01-01", "hook": json.dumps(documented("resubscribed"))}]
    write_csv(tmp_path / "kept.csv", rows)
    bring(store, tmp_path / "kept.csv", "--body-field", "hook", "--received-field", "seen")
    [call] = calls_of(store)
    assert call["receivedAt"] == "2024-01-01T00:00:00.000000Z"
    for option in ("--body-field", "--received-field"):
        problem = bring(store, tmp_path / "kept.csv", option, "other", status=1)
        assert f"no column with the name given by {option}" in problem


def test_a_field_that_no_record_has_stops_before_anything_is_stored(store, tmp_path):
    write_ndjson(tmp_path / "kept", [{"Seen": "2024-01-01", "hook": documented("opened")}])
    write_ndjson(tmp_path / "other", [documented("sent")])
    for option in ("--body-field", "--received-field"):
        problem = bring(store, tmp_path / "kept", option, "none", status=1)
        assert f"{tmp_path}/kept: its first records have no field" in problem
        assert problem.endswith(f"given by {option}\n")
    assert (calls_of(store), letters_of(store)) == ([], [])
    both = ("--body-field", "hook", "--received-field", "seen")
    bring(store, tmp_path / "other", tmp_path / "kept", *both, status=1)
    assert [call["event"] for call in calls_of(store)] == ["Email Opened"]
    bring(store, tmp_path / "kept", "--body-field", "hook", "--received-field", "hook")
    assert "--received-field holds no time" in letters_of(store)[0].reason


# An export of this project's own


def test_a_store_is_rebuilt_from_its_export_and_from_its_read_api(store, tmp_path):
    kept = history(100)
    deliver(store, kept)
    calls = calls_of(store)
    archive = (tmp_path / "archive").as_uri()
    done = run_collector("export", "--store", store, "--to", archive, cwd=tmp_path)
    assert done.returncode == 0
    with open_reader(store, "store") as reader:
        (tmp_path / "events.ndjson").write_bytes(b"\n".join(every_line(reader)))
    for number, source in enumerate((tmp_path / "archive", tmp_path / "events.ndjson")):
        rebuilt = f"sqlite:///{tmp_path}/rebuilt-{number}.db"
        assert figure(bring(rebuilt, source), "new events") == 100
        found = calls_of(rebuilt)
        for call in (*found, *calls):
            call["loadedAt"] = None
        assert sorted(found, key=str) == sorted(calls, key=str)
        assert figure(bring(store, source), "new events") == 0


# What cannot be read


def test_what_cannot_be_mapped_is_a_dead_letter_with_its_place_and_can_be_replayed(store, tmp_path):
    lines = [
        json.dumps(documented("sent")),
        "not JSON",
        json.dumps({"received_at": "2024-01-01T00:00:00Z", "body": {"type": "new"}}),
        json.dumps(documented("user_created")),
        json.dumps({"body": documented("sent"), "received_at": "yesterday"}),
        '{"type": "sent", "x": "' + "y" * 600_000 + '"}',
    ]
    (tmp_path / "kept").write_text("\n".join(lines))
    printed = bring(store, tmp_path / "kept")
    assert (figure(printed, "new events"), figure(printed, "dead letters")) == (1, 5)
    letters = letters_of(store)
    places = [letter.reason.removeprefix(f"{tmp_path}/kept: ") for letter in letters]
    assert [place.partition(":")[0] for place in places] == [f"line {n}" for n in range(2, 7)]
    assert "yesterday" not in str(places)
    assert letters[1].received_at == times.from_text("2024-01-01")
    assert {letter.input for letter in letters} == {"import"}

    assert figure(bring(store, tmp_path / "kept"), "new events") == 0
    assert len(letters_of(store)) == 5
    dated = bring(store, tmp_path / "kept", "--received-at", "2024-02-01")
    assert figure(dated, "new events") == 1
    assert calls_of(store)[-1]["receivedAt"] == "2024-02-01T00:00:00.000000Z"
    done = run_collector("dead-letters", "replay", "--store", store, cwd=tmp_path)
    assert "read again: 5, of which 5 stay" in done.stdout


def test_a_dead_letter_whose_type_is_known_now_is_replayed_at_its_time(store, tmp_path):
    body = json.dumps({"note": 1, "payload": documented("resubscribed")}).encode()
    from tap_vero_segment.stores.base import DeadLetter

    writer = open_writer(store, "store")
    writer.write([], [DeadLetter(times.from_text("2024-01-01"), "import", "x: line 1: y", body)])
    writer.close()
    done = run_collector("dead-letters", "replay", "--store", store, cwd=tmp_path)
    assert "of which 0 stay" in done.stdout
    assert calls_of(store)[0]["receivedAt"] == "2024-01-01T00:00:00.000000Z"


@pytest.mark.parametrize(
    ("content", "said", "events"),
    [
        (gzip.compress(b'{"type": "sent", "sent_at": 1}\n' * 3)[:-4], "truncated gzip", 1),
        (b'[{"type": "sent", "sent_at": 1}, {"type": "se', "ends within item 2", 1),
        (b"number,name\n1,x\n", "no column of a known name", 0),
        (b"PAR1 and so on", "not Parquet that can be read", 0),
        (b"\xff\xfea\0", "UTF-16", 0),
        (b"body,type\r{},sent\r", "its first line is no line of CSV", 0),
        (bz2.compress(b"{}"), "neither text nor Parquet", 0),
    ],
    ids=["gzip", "array", "table", "parquet", "utf-16", "line ends", "packed otherwise"],
)
def test_a_file_that_cannot_be_read_to_its_end_ends_in_an_error(
    content, said, events, store, tmp_path
):
    (tmp_path / "a").write_bytes(content)
    write_ndjson(tmp_path / "b", [documented("opened")])
    printed = bring(store, tmp_path / "a", tmp_path / "b", status=1)
    assert said in printed
    assert f"{tmp_path}/a: " in printed
    assert len(calls_of(store)) == events + 1


@pytest.mark.parametrize("source", ["missing", "*.none", "https://example.com/x", "file:///none/x"])
def test_a_source_that_is_nowhere_ends_the_run_before_it_begins(source, store, tmp_path):
    printed = bring(store, source, status=1, cwd=tmp_path)
    assert printed.startswith("vero-collector: ")
    assert len(printed.splitlines()) == 1


@pytest.mark.parametrize(
    "content",
    [
        "{}{}",
        "{}\n\n{}\n",
        "[{},{}]",
        "\ufeff[\n {},\n {}\n]\n",
        '[{"body": {}}, {"body": {}}]',
        '{"body":\n {}}\n{"body":\n {}}',
        "[{}]\n[{}]",
    ],
)
def test_layouts_of_json(content, store, tmp_path):
    payloads = [documented("sent"), documented("opened")]
    payloads[0]["note"] = 'a } brace, a \\ and a "quote" and [ \\" ]'
    for payload in payloads:
        content = content.replace("{}", f"<{payload['type']}>", 1)
    for payload in payloads:
        content = content.replace(f"<{payload['type']}>", json.dumps(payload))
    (tmp_path / "kept").write_text(content)
    bring(store, tmp_path / "kept")
    assert [call["event"] for call in calls_of(store)] == ["Email Sent", "Email Opened"]
    assert calls_of(store)[0]["properties"]["note"] == payloads[0]["note"]


@pytest.mark.parametrize(
    "table",
    [
        'body;received_at\n"{0}";2024-01-01 00:00:00+00\n',
        'id\tbody\treceived_at\r\n7\t"{0}"\t2024-01-01\r\n',
        '\ufeffReceived_At,Body\n1704067200,"{0}"\n\n',
    ],
)
def test_dialects_of_csv(table, store, tmp_path):
    payload = documented("opened") | {"user_agent": 'two\nlines, and "quotes"'}
    text = json.dumps(payload)
    content = table.replace("{0}", text.replace('"', '""'))
    if "Body" in table:
        content = table.replace("{0}", text.replace("\\", "\\\\").replace('"', '\\"'))
        content = content.replace("Received_At", "received_at").replace("Body", "body")
    (tmp_path / "kept.csv").write_text(content)
    bring(store, tmp_path / "kept.csv")
    [call] = calls_of(store)
    assert call["receivedAt"] == "2024-01-01T00:00:00.000000Z"
    assert call["context"]["userAgent"] == payload["user_agent"]


def test_times_in_billionths_within_a_column_of_objects(store, tmp_path):
    """As Spark and pandas write them, which Python's own times do not know."""
    moment = pa.timestamp("ns")
    user = pa.struct([("id", pa.int64()), ("seen", pa.list_(moment))])
    payload = pa.struct([("type", pa.string()), ("opened_at", moment), ("user", user)])
    value = {"type": "opened", "opened_at": 10**18 + 1, "user": {"id": 7, "seen": [10**18 + 1]}}
    times_of_day = pa.array([1], pa.time64("ns"))
    table = pa.table({"payload": pa.array([value], payload), "of_day": times_of_day})
    pq.write_table(table, tmp_path / "kept")
    bring(store, tmp_path / "kept")
    [call] = calls_of(store)
    assert (call["userId"], call["timestamp"]) == ("7", "2001-09-09T01:46:40.000000Z")


def test_pages_and_users_of_segment_are_ignored_and_counted_here_only(store, tmp_path):
    page = {"type": "page", "messageId": "1", "receivedAt": "2024-01-01T00:00:00Z"}
    write_ndjson(tmp_path / "kept", [page, page, documented("sent")])
    assert figure(bring(store, tmp_path / "kept"), "ignored") == 2
    with open_reader(store, "store") as reader:
        assert reader.summary().ignored == 0


# Where files are


def test_folders_patterns_and_urls(store, tmp_path):
    folder = tmp_path / "a folder" / "deeper"
    folder.mkdir(parents=True)
    for number, payload in enumerate(many(4)):
        write_ndjson(folder / f"{number}.ndjson", [payload])
    write_ndjson(folder / ".hidden", many(5)[4:])
    assert figure(bring(store, folder / "0.ndjson"), "new events") == 1
    assert figure(bring(store, folder / "[01].ndjson"), "new events") == 1
    assert figure(bring(store, (folder / "2.ndjson").as_uri()), "new events") == 1
    assert figure(bring(store, folder.parent), "new events") == 1


def test_standard_input(store, tmp_path):
    command = collector_command("import", "--store", store, "-")
    for content, said in (
        (json.dumps(documented("sent")).encode(), "new events imported: 1"),
        (gzip.compress(json.dumps(documented("sent")).encode()), "stored already: 1"),
        (b"PAR1", "standard input: Parquet cannot be read from standard input"),
    ):
        done = subprocess.run(
            command, input=content, env=clean_environment(), capture_output=True, check=False
        )
        assert said in (done.stdout + done.stderr).decode()


def put(s3: S3, key: str, content: bytes) -> None:
    s3.client().put_object(Bucket="kept", Key=key, Body=content)


def test_files_in_s3(store, tmp_path, s3):
    s3.make_bucket("kept")
    for number, payload in enumerate(many(4)):
        put(s3, f"a/{number}.ndjson", json.dumps(payload).encode())
    kept = REBUILT["stitch-parquet"](tmp_path / "file", history(20)[10:15])
    put(s3, "b/x.parquet", (tmp_path / "file").read_bytes())
    for source, new in (
        ("s3://kept/a/0.ndjson", 1),
        ("s3://kept/a/*1.ndjson", 1),
        ("s3://kept/a", 2),
        ("s3://kept/b/x.parquet", len(kept)),
    ):
        assert figure(bring(store, source, env=s3.environment), "new events") == new
    assert "there are no files" in bring(store, "s3://kept/c", status=1, env=s3.environment)


# Broken off, beside a collector, large


def killed_after(store: str, sources: Sequence[Path], seconds: float) -> bool:
    """Start an import and kill it; whether it was still running."""
    process = subprocess.Popen(
        collector_command("import", "--store", store, *map(str, sources)),
        env=clean_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
    return process.wait() == -signal.SIGKILL


@by_rounds
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_killed_at_any_point_and_run_again_it_ends_complete(kind, request, store, tmp_path):
    if kind == "postgresql":
        store = request.getfixturevalue("database")
    kept = history(1_000)
    names = ("wrapped-text", "stitch-csv")
    for name in names:
        SHAPES[name](tmp_path / name, kept)
    sources = [tmp_path / name for name in names]
    chance = random.Random(3)
    began = time.monotonic()
    bring(f"sqlite:///{tmp_path}/whole.db", *sources)
    longest = time.monotonic() - began
    most = rounds(20, least=1)
    killed = sum(killed_after(store, sources, chance.uniform(0.2, longest)) for _ in range(most))
    assert killed
    bring(store, *sources)
    calls = calls_of(store)
    assert sorted(call["messageId"] for call in calls) == sorted(ids(kept))
    assert sorted(call["receivedAt"] for call in calls) == sorted(at for _, at in kept)
    assert letters_of(store) == []


def test_beside_a_collector_that_receives(collector, tmp_path):
    kept = EXACT["ndjson"](tmp_path / "kept", history(2_000))
    process = subprocess.Popen(
        collector_command("import", "--store", collector.store_url, str(tmp_path / "kept")),
        env=clean_environment(),
        stdout=subprocess.DEVNULL,
    )
    posted = 0
    while process.poll() is None:
        payload = documented("sent") | {"sent_at": 1_800_000_000 + posted}
        assert collector.post(payload).status_code == 200
        posted += 1
    assert process.returncode == 0
    assert posted
    assert len(calls_of(collector.store_url)) == len(kept) + posted


def test_memory_does_not_grow_with_the_file(store, tmp_path):
    """An array in one line, of which one item is far too long."""
    payload = json.dumps(documented("sent"))
    with gzip.open(tmp_path / "kept", "wt", compresslevel=1) as file:
        file.write("[")
        for number in range(20):
            note = "x" * (100_000_000 if number == 10 else 3_000_000)
            file.write(f'{{"note": "{note}", "type": "sent", "sent_at": {number}}},')
        file.write(f"{payload}]")
    code = (
        "import sys; from tap_vero_segment.collector.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "finally: print(open('/proc/self/status').read(), file=sys.stderr)"
    )
    command = collector_command("import", "--store", store, str(tmp_path / "kept"))
    at = command.index("-c") + 1
    done = subprocess.run(
        [*command[:at], code, *command[at + 1 :]],
        capture_output=True,
        text=True,
        env=clean_environment(),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert figure(done.stdout, "dead letters") == 20
    [most] = re.findall(r"VmHWM:\s+(\d+) kB", done.stderr)
    assert int(most) < 150_000
    assert len(calls_of(store)) == 1
