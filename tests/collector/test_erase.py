"""``vero-collector erase``: people out of both stores and of archives, and kept out."""

from __future__ import annotations

import base64
import gzip
import hmac
import json
import random
import shutil
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import apsw
import psycopg
import pytest
import requests

from tap_vero_segment import times
from tap_vero_segment.collector.commands.erase import erase
from tap_vero_segment.inputs.intake import read_vero
from tap_vero_segment.limits import MAX_BODY
from tap_vero_segment.recipients import address, identities_in, user_id
from tap_vero_segment.stores.base import DeadLetter
from tap_vero_segment.stores.open import open_reader, open_writer
from tap_vero_segment.stores.sqlite import scrubbing
from tests.support.archive_fixtures import no_cloud, s3
from tests.support.archived import archived, killed_when
from tests.support.collector import (
    READ_TOKEN,
    SECRETS,
    SEGMENT_SECRET,
    Collector,
    run_collector,
    wait_until,
)
from tests.support.payloads import documented
from tests.support.rounds import by_rounds, rounds
from tests.support.store import new_store
from tests.support.stored import every_line
from tests.support.tap import discover, run_tap, select

if TYPE_CHECKING:
    import subprocess

    from tests.support.s3 import S3

__all__ = ["no_cloud", "s3"]

ANN = "ann.o'hara+news@example.com"
BEFORE = times.from_text("2026-01-05T09:24:00Z")


@pytest.fixture(params=["sqlite", pytest.param("postgresql", id="postgresql")])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return new_store(request, tmp_path)


@pytest.fixture
def sqlite(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/vero-events.db"


def run(
    folder: Path, store: str, *arguments: str, **options: Any
) -> subprocess.CompletedProcess[str]:
    return run_collector(*arguments, "--store", store, cwd=folder, **options)


def good(folder: Path, store: str, *arguments: str, **options: Any) -> str:
    done = run(folder, store, *arguments, **options)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def erased(folder: Path, store: str, *arguments: str) -> dict[str, Any]:
    return json.loads(good(folder, store, "erase", *arguments, "--yes", "--json"))


def of(person: Any, vero_type: str = "sent", **fields: Any) -> dict[str, Any]:
    return documented(vero_type) | {"campaign": {"id": 9}, "user": person} | fields


def fill(store: str, payloads: list[dict], letters: list[bytes] | None = None) -> list[str]:
    events = [
        read_vero(json.dumps(payload).encode(), BEFORE + number)
        for number, payload in enumerate(payloads)
    ]
    dead = [
        DeadLetter(BEFORE + number, "vero", "a reason", body)
        for number, body in enumerate(letters or [])
    ]
    writer = open_writer(store, "store")
    writer.write(events, dead)
    writer.close()
    return [event.id for event in events]


def ids_in(store: str) -> list[str]:
    with open_reader(store, "store") as reader:
        return [json.loads(line)["messageId"] for line in every_line(reader)]


def letters_in(store: str) -> list[bytes]:
    with open_reader(store, "store") as reader:
        return [kept.letter.body for kept in reader.dead_letters(0, 1000)]


def traces(folder: Path, needle: str) -> list[str]:
    """The files that hold an address, in whatever case."""
    found = []
    for path in folder.rglob("*"):
        if path.is_file() and not path.name.endswith(".log"):
            content = path.read_bytes()
            if path.suffix == ".gz":
                content += gzip.decompress(content)
            if needle.lower().encode() in content.lower():
                found.append(path.name)
    return found


def assert_counted_right(store: str) -> None:
    with open_reader(store, "store") as reader:
        lines = [json.loads(line) for line in every_line(reader)]
        totals = {total.collection: total for total in reader.summary().totals if total.events}
    counts = Counter(line["event"].lower().replace(" ", "_") for line in lines)
    assert {name: total.events for name, total in totals.items()} == counts
    for name, total in totals.items():
        moments = [
            times.from_text(line["loadedAt"])
            for line in lines
            if line["event"].lower().replace(" ", "_") == name
        ]
        assert total.first_loaded_at == min(moments)
        assert total.last_loaded_at >= max(moments)


OWN = [
    of({"id": 1, "email": ANN}),
    of({"id": None, "email": f"  {ANN.upper()} "}),
    of({"id": ANN, "email": None}),
    of({"id": 2}, campaign={"id": 9, "sent_to": ANN}),
    of({"id": 3}, "user_updated", changes={"email": {"from": ANN, "to": "new@example.com"}}),
    of({"id": 4}, "user_updated", email=ANN),
    of({"id": 5}, "clicked", event={"name": "x", "data": {"customer": {"Email_Address": ANN}}}),
    of({"id": 6}, campaign={"id": 9, "sent_to": f"Ann <{ANN}>"}),
]
OTHERS = [
    of({"id": 11, "email": f"jo{ANN}"}),
    of({"id": 12, "email": f"{ANN}.au"}),
    of({"id": 13, "email": "bob@example.com"}),
    of({"id": 14, "email": "eve@example.com"}, campaign={"id": 9, "subject": f"{ANN} invites you"}),
    of({"id": 15}, "clicked", url=f"https://x.example/?to={quote(ANN)}&from=email"),
]


def test_an_address_is_erased_wherever_it_stands_as_the_recipients(tmp_path, store):
    plain = json.dumps({"type": "?", "user": {"email": ANN}}).encode()
    own_letters = [
        plain,
        plain.replace(b"@", b"\\u0040"),
        quote(plain).encode(),
        b"payload=" + quote(plain, safe="").encode(),
        gzip.compress(plain),
        gzip.compress(plain * 50)[:-8],
        base64.b64encode(plain),
        json.dumps({"type": "?", "body": base64.b64encode(plain).decode()}).encode(),
        plain.decode().encode("utf-16"),
        f"no JSON <{ANN}>, but hers".encode(),
    ]
    other_letters = [b'{"type": "?", "user": {"email": "bob@example.com"}}', b"nonsense"]
    ids = fill(store, [*OTHERS, *OWN], [*other_letters, *own_letters])

    looked = json.loads(good(tmp_path, store, "erase", "--email", ANN, "--dry-run", "--json"))
    assert ids_in(store) == ids
    done = erased(tmp_path, store, "--email", f" {ANN.title()}")

    assert looked == done
    assert ids_in(store) == ids[: len(OTHERS)]
    assert letters_in(store) == other_letters
    assert (done["events"], done["dead_letters"]) == (len(OWN), len(own_letters))
    assert done["mentions"] == 2
    assert_counted_right(store)
    again = erased(tmp_path, store, "--email", ANN)
    assert (again["events"], again["dead_letters"]) == (0, 0)


def test_a_user_id_is_erased_as_number_and_text_and_no_other(tmp_path, store):
    own = [of({"id": 42}), of({"id": "42", "email": ANN}), of({"id": None}, "user_created", id=42)]
    others = [of({"id": 420}), of({"id": 7}, campaign={"id": 42}), of({"id": None, "email": ANN})]
    letters = [b'{"type": "?", "user": {"id": 42}}', b'{"type": "?", "campaign": {"id": 42}}']
    ids = fill(store, [*others, *own], letters)

    done = erased(tmp_path, store, "--user-id", "42")

    assert (done["events"], done["dead_letters"]) == (3, 1)
    assert ids_in(store) == ids[:3]
    assert done["related_events"] == 1  # the same address, without an id
    assert erased(tmp_path, store, "--user-id", "42", "--email", ANN)["events"] == 1


def test_the_files_of_sqlite_keep_no_trace(tmp_path, sqlite):
    chance = random.Random(5)
    people = [f"person{number:03}@example.com" for number in range(60)]
    payloads = [
        of(
            {"id": number % 60, "email": people[number % 60]},
            filler="x" * chance.randint(300, 900),
            number=number,
        )
        for number in range(1200)
    ]
    ids = fill(
        sqlite, payloads, [f"not JSON {people[0]} {number}".encode() for number in range(40)]
    )
    good(tmp_path, sqlite, "export", "--to", (tmp_path / "archive").as_uri())
    gone = set(chance.sample(range(60), 40)) | {0}
    (tmp_path / "people.txt").write_text("\n".join(people[number] for number in gone))

    done = erased(tmp_path, sqlite, "--emails-from", "people.txt")

    (tmp_path / "people.txt").unlink()
    assert done["events"] == 20 * len(gone)
    assert [person for number, person in enumerate(people) if traces(tmp_path, person)] == [
        person for number, person in enumerate(people) if number not in gone
    ]
    left = [each for number, each in enumerate(ids) if number % 60 not in gone]
    assert ids_in(sqlite) == left
    assert sorted(archived(tmp_path / "archive")) == sorted(left)
    assert_counted_right(sqlite)
    # Without its mark all of the store is checked when it is opened to be written.
    (tmp_path / "vero-events.db-mark").unlink()
    open_writer(sqlite, "store").close()


def test_the_files_of_postgresql_keep_no_trace_once_its_tables_are_rewritten(tmp_path, database):
    fill(database, [*OTHERS[2:3], *OWN] * 100, [f"not JSON {ANN}".encode()])
    with psycopg.connect(database, autocommit=True) as connection:
        query = "SELECT oid FROM pg_database WHERE datname = current_database()"
        [(oid,)] = connection.execute(query)
        [(data,)] = connection.execute("SHOW data_directory")
        files = Path(data, "base", str(oid))
        erased(tmp_path, database, "--email", ANN, "--rewrite")
        connection.execute("CHECKPOINT")
    assert traces(files, ANN) == []


def test_a_reader_that_stays_for_long_is_said_and_it_is_finished_later(
    tmp_path, sqlite, monkeypatch
):

    monkeypatch.setattr(scrubbing, "PATIENCE", 0.2)
    fill(sqlite, [*OTHERS, *OWN])
    path = f"{tmp_path}/vero-events.db"
    with closing(apsw.Connection(path, flags=apsw.SQLITE_OPEN_READONLY)) as held:
        held.execute("BEGIN; SELECT count(*) FROM events").fetchall()
        done = erase(sqlite, [address(ANN)])
        assert "end that process, then run this again" in done.problems[0]
        assert json.loads(good(tmp_path, sqlite, "status", "--json"))["erasures"]["unfinished"] == 1
    assert erase(sqlite, [address(ANN)]).problems == []
    assert traces(tmp_path, f'"email":"{ANN}"') == []
    assert json.loads(good(tmp_path, sqlite, "status", "--json"))["erasures"]["unfinished"] == 0


def test_nobody_is_asked_without_a_terminal(tmp_path, sqlite):
    ids = fill(sqlite, OWN)
    for arguments, said in [
        (("--email", ANN), "not a terminal: add --yes"),
        ((), "say whom to erase"),
        (("--email", " ", "--yes"), "is empty"),
    ]:
        done = run(tmp_path, sqlite, "erase", *arguments)
        assert (done.returncode, done.stdout) == (1, "")
        assert said in done.stderr
        assert ANN not in done.stderr
    assert ids_in(sqlite) == ids
    assert not traces(tmp_path, "nobody@example.com")


def test_archives_are_written_anew_and_empty_objects_deleted(tmp_path, sqlite):
    ids = fill(sqlite, OTHERS)
    archive = tmp_path / "archive"
    good(tmp_path, sqlite, "export", "--to", archive.as_uri())
    own = fill(sqlite, OWN)
    good(tmp_path, sqlite, "export", "--to", archive.as_uri())
    # Segment's own, with a call of another kind.
    other = tmp_path / "segment-logs" / "source" / "1767571200000"
    other.mkdir(parents=True)
    identify = {"type": "identify", "userId": "1", "traits": {"email": ANN}}
    kept = {"type": "identify", "userId": "2", "traits": {"email": "bob@example.com"}}
    lines = b"".join(json.dumps(each).encode() + b"\n" for each in (identify, kept, identify))
    (other / "a.gz").write_bytes(gzip.compress(lines))
    assert len([*archive.rglob("*.gz")]) == 2

    done = erased(
        tmp_path, sqlite, "--email", ANN, "--archive", (tmp_path / "segment-logs").as_uri()
    )

    assert sorted(archived(archive)) == sorted(ids)
    assert len([*archive.rglob("*.gz")]) == 1
    assert gzip.decompress((other / "a.gz").read_bytes()) == json.dumps(kept).encode() + b"\n"
    assert done["archives"][archive.as_uri()] == {"events": len(own), "rewritten": 0, "deleted": 1}
    assert [done["archives"][url]["events"] for url in sorted(done["archives"])] == [len(own), 2]
    # What follows goes on where the archive ends.
    more = fill(sqlite, [of({"id": 99})])
    good(tmp_path, sqlite, "export", "--to", archive.as_uri())
    assert sorted(archived(archive)) == sorted([*ids, *more])


@by_rounds
def test_an_archive_in_s3_is_written_anew_however_often_it_is_killed(tmp_path, sqlite, s3: S3):
    s3.make_bucket("erased")
    url = "s3://erased/x"

    def lines() -> list[bytes]:
        client = s3.client()
        found = client.list_objects_v2(Bucket="erased").get("Contents", [])
        read = [
            client.get_object(Bucket="erased", Key=each["Key"])["Body"].read() for each in found
        ]
        return [line for each in read for line in gzip.decompress(each).splitlines()]

    ids = []
    for number in range(6):  # an object each; of the last one nothing stays
        payloads = [] if number == 5 else [*OTHERS]
        payloads = [each | {"n": number} for each in (*payloads, *OWN)]
        ids += fill(sqlite, payloads)[: len(payloads) - len(OWN)]
        good(tmp_path, sqlite, "export", "--to", url, env=s3.environment)
    command = ("erase", "--email", ANN, "--yes", "--store", sqlite)
    for number in range(rounds(20, least=1)):
        end = time.monotonic() + 0.3 + number * 0.1
        killed_when(tmp_path, lambda end=end: time.monotonic() > end, *command, env=s3.environment)
    good(tmp_path, sqlite, "erase", "--email", ANN, "--yes", env=s3.environment)

    assert sorted(json.loads(line)["messageId"] for line in lines()) == sorted(ids)
    assert len(s3.client().list_objects_v2(Bucket="erased")["Contents"]) == 5
    with open_reader(sqlite, "store") as reader:
        assert reader.erasure_figures().unfinished == 0


def test_an_archive_that_is_gone_for_good_can_be_forgotten(tmp_path, store):
    fill(store, [*OTHERS, *OWN])
    archive = tmp_path / "archive"
    good(tmp_path, store, "export", "--to", archive.as_uri())
    shutil.rmtree(archive)
    looked = run(tmp_path, store, "erase", "--email", ANN, "--dry-run")
    done = run(tmp_path, store, "erase", "--email", ANN, "--yes")
    for said in (looked, done):
        assert said.returncode == 1
        assert f"`vero-collector export --forget {archive.as_uri()}`" in said.stderr
    assert f"events found: {len(OWN)}" in looked.stdout
    assert len(ids_in(store)) == len(OTHERS)

    assert "was forgotten" in good(tmp_path, store, "export", "--forget", f"{archive.as_uri()}/")
    erased(tmp_path, store, "--email", ANN)

    with open_reader(store, "store") as reader:
        assert reader.erasure_figures().unfinished == 0
    assert "no archive has any" in run(tmp_path, store, "prune", "--before", "2030-01-01").stderr
    again = run(tmp_path, store, "export", "--forget", archive.as_uri())
    assert "--forget: this store was not exported there" in again.stderr


def test_what_was_received_before_stays_away_and_later_webhooks_come(tmp_path, store):
    fill(store, [*OTHERS, *OWN])
    erased(tmp_path, store, "--email", ANN)
    writer = open_writer(store, "store")
    people = writer.erased_people()
    writer.close()
    old = [read_vero(json.dumps(each).encode(), BEFORE) for each in (*OTHERS, *OWN)]
    new = [read_vero(json.dumps(each).encode(), times.now()) for each in OWN]
    letter = DeadLetter(BEFORE, "vero", "a reason", f"<{ANN}>".encode())

    kept, letters, dropped = people.without(old, [letter])
    assert (list(kept), list(letters), dropped) == (old[: len(OTHERS)], [], len(OWN) + 1)
    assert people.without(new)[2] == 0


def test_a_dry_run_of_an_import_counts_erased_people_as_the_import_does(tmp_path, store):
    fill(store, [OTHERS[0], *OWN])
    erased(tmp_path, store, "--email", ANN)
    kept = [{"payload": each, "received_at": "2026-01-05T09:24:00Z"} for each in (*OTHERS, *OWN)]
    lines = [*map(json.dumps, kept), f"no JSON, {ANN}"]
    (tmp_path / "kept.ndjson").write_text("\n".join(lines))

    tried = run(tmp_path, store, "import", "kept.ndjson", "--dry-run").stdout
    done = good(tmp_path, store, "import", "kept.ndjson")

    assert tried.replace("would be imported", "imported") == done
    assert f"dropped, as of erased people: {len(OWN) + 1}" in done
    assert "dead letters: 0" in done
    assert len(ids_in(store)) == len(OTHERS)


def test_a_replay_does_not_bring_an_erased_person_back(tmp_path, sqlite):
    erased(tmp_path, fill(sqlite, OTHERS) and sqlite, "--email", ANN)
    writer = open_writer(sqlite, "store")
    writer.write([], [DeadLetter(BEFORE, "vero", "old", json.dumps(OWN[0]).encode())])
    writer.close()
    said = good(tmp_path, sqlite, "dead-letters", "replay")
    assert "events of erased people, not stored: 1" in said
    assert letters_in(sqlite) == []
    assert len(ids_in(sqlite)) == len(OTHERS)


def test_suppressed_people_are_dropped_as_they_come(tmp_path, store):
    with Collector(tmp_path, store_url=store) as collector:
        collector.post(OWN[0])
        collector.post(OTHERS[2])
        erased(tmp_path, store, "--email", ANN, "--suppress")
        before = ids_in(store)
        for payload in (*OWN, OTHERS[0]):
            assert collector.post(payload).status_code == 200
        assert collector.post(f"no JSON, {ANN}").status_code == 400
        assert len(ids_in(store)) == len(before) + 1
        assert letters_in(store) == []
        figures = json.loads(good(tmp_path, store, "status", "--json"))["erasures"]
        assert (figures["suppressed"], figures["dropped"]) == (1, len(OWN) + 1)
        metrics = collector.get("/metrics").text
        assert f"vero_collector_events_of_erased_people_total {len(OWN) + 1}.0" in metrics
        erased(tmp_path, store, "--email", ANN, "--no-suppress")
        wait_until(
            lambda: (
                (collector.post(OWN[0] | {"n": time.time()}), len(ids_in(store)))[1]
                > len(before) + 1
            )
        )


def test_the_tap_goes_on_and_brings_the_ids_of_what_was_erased(tmp_path, store):
    ids = fill(store, [*OTHERS, *OWN])
    config = {"source": store}
    catalog = discover(tmp_path, config)
    select(catalog, "user_updated", selected=True)
    select(catalog, "erasures", selected=True)
    before = run_tap(tmp_path, config, catalog=catalog).messages
    erased(tmp_path, store, "--email", ANN)
    new = fill(store, [of({"id": 77})])
    after = run_tap(tmp_path, config, catalog=catalog, state=before.state).messages

    assert after.ids("tracks") == new  # and not everything again
    records = after.records["erasures"]
    assert sorted(each["id"] for each in records) == sorted(ids[len(OTHERS) :])
    assert [each["loaded_at"] for each in records] == sorted(each["loaded_at"] for each in records)
    assert all(each["erased_at"] > times.to_text(BEFORE) for each in records)
    again = run_tap(tmp_path, config, catalog=catalog, state=after.state).messages
    assert not again.records


def test_the_read_api_has_what_was_erased(tmp_path, sqlite):
    ids = fill(sqlite, [*OTHERS, *OWN])
    with Collector(tmp_path, store_url=sqlite) as collector:
        assert collector.get("/v1/erasures").status_code in {200, 401}
        erased(tmp_path, sqlite, "--email", ANN)
        config = {"source": collector.url, "token": READ_TOKEN}
        catalog = discover(tmp_path, config)
        select(catalog, "erasures", selected=True)
        run = run_tap(tmp_path, config, catalog=catalog).messages
        assert sorted(run.ids("erasures")) == sorted(ids[len(OTHERS) :])
        assert not run_tap(tmp_path, config, catalog=catalog, state=run.state).messages.records
        # Of a collector that has not come as far, everything.
        run.state["bookmarks"]["erasures"]["replication_key_value"] = "2999-01-01"
        run = run_tap(tmp_path, config, catalog=catalog, state=run.state).messages
        assert len(run.ids("erasures")) == len(OWN)
        wrong = collector.get("/v1/erasures?limit=0")
        assert wrong.status_code == 400


@by_rounds
def test_killed_at_any_point_the_next_one_ends_it(tmp_path, store):
    people = [f"person{number:02}@example.com" for number in range(20)]
    payloads = [of({"id": n % 20, "email": people[n % 20]}, filler=str(n)) for n in range(3000)]
    ids = fill(store, payloads, [f"not JSON {one}".encode() for one in people])
    archive = tmp_path / "archive"
    good(tmp_path, store, "export", "--to", archive.as_uri())
    (tmp_path / "people.txt").write_text("\n".join(people[:10]))
    arguments = ["erase", "--emails-from", "people.txt", "--yes", "--store", store]
    for number in range(rounds(20, least=2)):
        end = time.monotonic() + 0.6 + number * 0.13
        killed_when(tmp_path, lambda end=end: time.monotonic() > end, *arguments)
    erased(tmp_path, store, "--emails-from", "people.txt")

    (tmp_path / "people.txt").unlink()
    left = [each for number, each in enumerate(ids) if number % 20 >= 10]
    assert ids_in(store) == left
    assert sorted(archived(archive)) == sorted(left)
    assert len(letters_in(store)) == 10
    assert_counted_right(store)
    assert not [one for one in people[:10] if traces(tmp_path, one)]
    with open_reader(store, "store") as reader:
        assert len(reader.erased(0, 10_000)) == len(ids) - len(left)
        assert reader.erasure_figures().unfinished == 0


def test_segments_delete_notices_erase_where_the_setting_says_so(tmp_path, store):
    ids = fill(store, [of({"id": 42}), of({"id": 43}), of({"id": None, "email": ANN})])
    ids += fill(store, [of({"id": ANN})])
    archive = tmp_path / "archive"
    good(tmp_path, store, "export", "--to", archive.as_uri())
    notices = [{"type": "delete", "userId": one, "messageId": f"x{one}"} for one in (42, ANN)]

    def deliver(collector: Collector) -> None:
        body = json.dumps(notices).encode()
        signature = hmac.new(SEGMENT_SECRET.encode(), body, "sha1").hexdigest()
        response = requests.post(
            f"{collector.url}/segment", body, headers={"X-Signature": signature}, timeout=30
        )
        assert response.status_code == 200

    with Collector(tmp_path, store_url=store) as collector:
        deliver(collector)
    assert ids_in(store) == ids  # off by default
    on = SECRETS | {"VERO_COLLECTOR_SEGMENT_DELETES": "true"}
    with Collector(tmp_path, store_url=store, env=on) as collector:
        deliver(collector)
        wait_until(lambda: ids_in(store) == ids[1:2])
        wait_until(lambda: list(archived(archive)) == ids[1:2])
        assert ANN not in collector.log()
    # One that a collector has only begun is finished by the next.
    writer = open_writer(store, "store")
    writer.begin_erasure([writer.erased_people().digest(user_id("43"))])
    writer.close()
    with Collector(tmp_path, store_url=store, env=on):
        wait_until(lambda: ids_in(store) == [])


@pytest.mark.parametrize(
    ("body", "seconds"),
    [
        (b"x" * MAX_BODY, 1),
        (b"=" * MAX_BODY + b"@x.de", 1),
        (b"1" * MAX_BODY, 1),
        (b'"user":{' * (MAX_BODY // 8), 1),
        (b"@" * MAX_BODY, 0.25),
        (b"a@" * (MAX_BODY // 2), 0.5),
    ],
    ids=["a long word", "much before an address", "digits", "users", "signs", "halves"],
)
def test_a_hostile_dead_letter_is_searched_in_time_that_grows_with_its_size_only(body, seconds):
    spent = []
    for _ in range(3):
        began = time.process_time()
        identities_in(body)
        spent.append(time.process_time() - began)

    assert min(spent) < seconds
