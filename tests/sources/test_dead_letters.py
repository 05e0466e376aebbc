"""Lines of an archive that cannot be read."""

from __future__ import annotations

import gzip
import json
import random
import stat
from typing import TYPE_CHECKING, Any

import pytest

from tap_vero_segment.archive.lines import MAX_LINE
from tap_vero_segment.errors import SettingError
from tests.support.archive import (
    FIRST_DAY,
    WRITE_KEY,
    ArchiveObject,
    Maker,
    as_written,
    events_of,
    path_of,
    text_of,
    track,
    write_folder,
    zipped,
)
from tests.support.batches import batches_to
from tests.support.faulty_s3 import FaultyS3, Held, refused
from tests.support.inline_tap import sync_inline
from tests.support.segment import line_of
from tests.support.stored import ids_by_stream, ids_of
from tests.support.streams import ALL_STREAMS, bookmark_of, catalog_of

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.forked_tap import ForkedTap
    from tests.support.tap import Run

EVERYTHING = catalog_of(*ALL_STREAMS)
NAME = path_of("source-a", 0, "bad.gz")


def sent(**fields: Any) -> bytes:
    """A call of ours as a line."""
    return line_of(track(1, "Email Sent", FIRST_DAY, **fields))


def without(field: str) -> bytes:
    call = track(1, "Email Sent", FIRST_DAY)
    del call[field]
    return line_of(call)


BAD_LINES = {
    "no JSON": (b'{"type": "track", "event": "Email Sent"', "JSON"),
    "not UTF-8": (b'{"type": "track", "event": "Email Sent", "userId": "\xe9"}', "JSON"),
    "array": (b"[" + sent() + b"]", "object"),
    "text": (b'"type"', "object"),
    "no messageId": (without("messageId"), "messageId"),
    "no receivedAt": (without("receivedAt"), "receivedAt"),
    "receivedAt no time": (sent(receivedAt="lately"), "receivedAt"),
    "too deep": (sent(properties="x").replace(b'"x"', b"[" * 200 + b"]" * 200), "nested"),
    "much too deep": (sent(userId="x").replace(b'"x"', b"[" * 99_999 + b"]" * 99_999), "nested"),
    "too long": (sent(userId="x" * MAX_LINE), "longer than 1000000 bytes"),
}

each_bad_line = pytest.mark.parametrize(("line", "reason"), BAD_LINES.values(), ids=list(BAD_LINES))


def archive(content: bytes) -> list[ArchiveObject]:
    """A bad object among good ones; its calls are to be told by the test."""
    first, last = Maker().small(2, 30, days=1)
    bad = ArchiveObject(NAME, content, first.modified_at, [])
    return [first, bad, last]


def expected(objects: list[ArchiveObject]) -> dict[str, list[str]]:
    return ids_by_stream(events_of(objects))


def errors_of(run: Run) -> str:
    """The one line that tells why a run has failed."""
    assert run.status == 1
    assert "Traceback" not in run.stderr
    [error] = [line for line in run.stderr.splitlines() if "ERROR" in line]
    return error


def warnings_of(run: Run) -> list[str]:
    lines = [line for line in run.stderr.splitlines() if "WARNING" in line]
    return [line.rpartition(" | ")[2] for line in lines]


def run_on(tap: ForkedTap, url: str, letters: Path | None, **files: Any) -> Run:
    settings = {} if letters is None else {"dead_letter": str(letters)}
    return tap.run({"source": url, **settings}, catalog=EVERYTHING, **files)


def letters_in(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


# Without a file for them


@each_bad_line
def test_unset_the_first_bad_line_ends_the_run_and_is_named(tmp_path, line, reason):
    content, _ = Maker(first=1_000).content(10, 0)
    good = content.splitlines(keepends=True)
    objects = archive(zipped(b"".join([*good[:6], line + b"\n", *good[6:]])))
    url = write_folder(tmp_path / "archive", objects)
    with pytest.raises(SettingError) as raised:
        sync_inline({"source": url}, catalog=EVERYTHING)
    error = str(raised.value)
    assert error.startswith(f"source: {url}/{NAME}: line 7: ")
    assert reason in error
    assert "set dead_letter" in error
    for unwanted in (WRITE_KEY, "person1@", "\n"):
        assert unwanted not in error


def test_unset_a_bad_line_is_told_in_one_line_and_the_status_is_one(tap: ForkedTap, tmp_path):
    url = write_folder(tmp_path / "archive", archive(zipped(without("messageId"))))
    run = run_on(tap, url, None)
    assert f"source: {url}/{NAME}: line 1: a call without messageId" in errors_of(run)
    assert WRITE_KEY not in run.stderr + run.stdout.decode()


def test_what_was_read_before_a_bad_line_counts(tap: ForkedTap):
    bad = archive(zipped(b"nonsense\n"))
    with FaultyS3(bad) as store:
        config = {"source": "s3://bucket", "storage_options": store.options}
        with tap.start(config, catalog=EVERYTHING) as running:
            messages = [json.loads(line) for line in running.stdout.read().splitlines()]
            assert running.wait() == 1
        ids = {message["record"]["id"] for message in messages if message["type"] == "RECORD"}
        states = [message["value"] for message in messages if message["type"] == "STATE"]
        state = states[-1] if states else None
        # The good object of the same second comes first, yet no bookmark may say that all was
        # read.
        assert ids == {call.id for call in bad[0].calls}
        assert bookmark_of(state, "tracks") is None
        store.objects[NAME] = Held(zipped(sent()), bad[0].modified_at)
        again = tap.run(config, catalog=EVERYTHING, state=state)
    assert again.status == 0, again.stderr
    assert len(again.messages.records["tracks"]) == len(expected(bad)["tracks"]) + 1


# With a file for them


def test_set_bad_lines_are_kept_and_the_run_goes_on_with_exact_counts(tap: ForkedTap, tmp_path):
    content, calls = Maker(first=1_000).content(len(BAD_LINES) * 3, 0)
    good = content.splitlines(keepends=True)
    lines = []
    for number, (line, _) in enumerate(BAD_LINES.values()):
        lines += [*good[number * 3 : number * 3 + 3], line + b"\n"]
    objects = archive(zipped(b"".join(lines)))
    url = write_folder(tmp_path / "archive", objects)
    letters = tmp_path / "letters.ndjson"
    run = run_on(tap, url, letters)
    assert run.status == 0, run.stderr
    assert ids_of(run.messages.records) == expected([*objects, objects[1]._replace(calls=calls)])
    assert bookmark_of(run.messages.state, "tracks") == max(
        text_of(made.modified_at) for made in as_written(tmp_path / "archive", objects)
    )

    kept = letters_in(letters)
    assert [letter.keys() for letter in kept] == [{"object", "line", "reason", "text"}] * len(kept)
    assert {letter["object"] for letter in kept} == {f"{url}/{NAME}"}
    assert [letter["line"] for letter in kept] == [
        4 * number + 4 for number in range(len(BAD_LINES))
    ]
    for letter, (line, reason) in zip(kept, BAD_LINES.values(), strict=True):
        assert reason in letter["reason"]
        assert WRITE_KEY not in letter["reason"]
        text = line.decode(errors="backslashreplace")
        assert letter["text"] == text[: MAX_LINE + 1]
    assert stat.S_IMODE(letters.stat().st_mode) == 0o600
    assert WRITE_KEY not in run.stderr + run.stdout.decode()


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda content: content[: len(content) // 2], "truncated gzip"),
        (lambda content: content[:-1], "truncated gzip"),
        (lambda content: content[:-8] + b"\0" * 8, "bad gzip"),
        (lambda content: content[:2] + b"nonsense" * 99, "bad gzip"),
        (lambda content: content[:5_000] + b"\xff" * 99 + content[5_099:], "bad gzip"),
        (lambda content: content + content[:500], "truncated gzip"),
        (lambda content: content + b"garbage", "bytes after the end of the gzip data"),
    ],
    ids=["half", "byte", "checksum", "no gzip", "in the middle", "second member", "garbage"],
)
def test_of_a_damaged_object_the_whole_lines_before_the_damage_count(tmp_path, damage, reason):
    content, calls = Maker(first=1_000, others=0).content(2_000, 0)
    objects = archive(damage(zipped(content)))
    url = write_folder(tmp_path / "archive", objects)

    with pytest.raises(SettingError, match=f"{NAME}: line .*: {reason}"):
        sync_inline({"source": url}, catalog=EVERYTHING)

    letters = tmp_path / "letters.ndjson"
    messages = sync_inline({"source": url, "dead_letter": str(letters)}, catalog=EVERYTHING)
    [letter] = letters_in(letters)
    assert (letter["object"], letter["text"]) == (f"{url}/{NAME}", "")
    assert reason in letter["reason"]
    # The line of the letter is the first one that is missing.
    whole = calls[: letter["line"] - 1]
    assert ids_of(messages.records) == expected([*objects, objects[1]._replace(calls=whole)])


@pytest.mark.parametrize("batches", [False, True], ids=["records", "batches"])
def test_the_end_of_a_run_tells_how_many_there_are_and_where(tap: ForkedTap, tmp_path, batches):
    url = write_folder(tmp_path / "archive", archive(zipped(b"nonsense\n" * 25)))
    letters = tmp_path / "letters.ndjson"
    settings = batches_to(tmp_path / "batches") if batches else {}
    run = tap.run({"source": url, "dead_letter": str(letters), **settings})
    assert run.status == 0, run.stderr
    assert warnings_of(run) == [f"dead letters of this run: 25, appended to {letters}"]


def test_a_run_that_fails_tells_them_too(tap: ForkedTap, tmp_path):
    bad = archive(zipped(b"nonsense\n"))
    letters = tmp_path / "letters.ndjson"
    with FaultyS3(bad) as store:
        store.faults[bad[2].path].append(refused(403, "AccessDenied"))
        config = {"source": "s3://bucket", "storage_options": store.options}
        run = tap.run(config | {"dead_letter": str(letters)})
    assert "access denied" in errors_of(run)
    assert warnings_of(run) == [f"dead letters of this run: 1, appended to {letters}"]


@pytest.mark.parametrize("pack", [zipped, bytes], ids=["gzip", "plain"])
def test_a_byte_order_mark_is_no_part_of_the_first_line(tmp_path, pack):
    content, calls = Maker(first=1_000, others=0).content(3, 0)
    objects = archive(pack(b"\xef\xbb\xbf" + content))
    url = write_folder(tmp_path / "archive", objects)
    messages = sync_inline({"source": url}, catalog=EVERYTHING)
    assert ids_of(messages.records) == expected([*objects, objects[1]._replace(calls=calls)])


def test_each_run_appends(tap: ForkedTap, tmp_path):
    url = write_folder(tmp_path / "archive", archive(zipped(b"nonsense\n")))
    letters = tmp_path / "letters.ndjson"
    letters.write_text('{"kept": true}\n')
    for _ in range(2):
        assert run_on(tap, url, letters).status == 0
    assert [letter.get("line") for letter in letters_in(letters)] == [None, 1, 1]


def test_without_a_bad_line_the_file_is_made_all_the_same(tap: ForkedTap, tmp_path):
    """Better told at the start than at the first bad line that it cannot be written."""
    url = write_folder(tmp_path / "archive", Maker().small(2, 20))
    letters = tmp_path / "letters.ndjson"
    run = run_on(tap, url, letters)
    assert run.status == 0
    assert letters.read_bytes() == b""
    assert warnings_of(run) == []


@pytest.mark.parametrize("path", ["no/such/folder/letters", ".", "nul\0letters", "x" * 300])
def test_a_file_that_cannot_be_written_is_told(tap: ForkedTap, tmp_path, path):
    url = write_folder(tmp_path / "archive", Maker().small(2, 20))
    run = tap.run({"source": url, "dead_letter": path})
    assert "dead_letter: cannot write" in errors_of(run)


def test_letters_may_go_nowhere(tap: ForkedTap, tmp_path):
    url = write_folder(tmp_path / "archive", archive(zipped(b"nonsense\n")))
    run = tap.run({"source": url, "dead_letter": "/dev/null"})
    assert run.status == 0, run.stderr


def test_a_file_that_has_no_more_space_ends_the_run(tap: ForkedTap, tmp_path):
    url = write_folder(tmp_path / "archive", archive(zipped(b"nonsense\n")))
    run = tap.run({"source": url, "dead_letter": "/dev/full"})
    assert "dead_letter: cannot write /dev/full: No space left on device" in errors_of(run)


# Strange, but good


def test_what_json_allows_is_no_bad_line(tap: ForkedTap, tmp_path):
    lines = [
        sent(messageId="surrogate", userId="cut \ud83d").replace(b"\\\\u", b"\\u"),
        sent(messageId="nul", userId="a\0b"),
        b"  " + sent(messageId="spaces") + b" \r",
        b"",
        b" \t ",
        sent(messageId="huge", properties={"campaign_id": 10**40}),
        sent(messageId="long", userId="x" * (MAX_LINE - 2_000)),
        sent(messageId="last, without a line end"),
    ]
    objects = archive(zipped(b"\n".join(lines)))
    url = write_folder(tmp_path / "archive", objects)
    run = run_on(tap, url, None)
    assert run.status == 0, run.stderr
    found = {record["id"]: record for record in run.messages.records["email_sent"]}
    assert found["surrogate"]["user_id"] == "cut \ufffd"
    assert found["nul"]["user_id"] == "a\ufffdb"
    assert found["huge"]["campaign_id"] == str(10**40)
    assert {"spaces", "long", "last, without a line end"} <= found.keys()
    assert len(run.messages.records["tracks"]) == len(expected(objects)["tracks"]) + 6


def test_an_object_of_random_bytes_is_bad_lines_and_never_an_error_of_ours(
    tap: ForkedTap, tmp_path
):
    chance = random.Random(3)
    contents = [chance.randbytes(chance.randrange(1, 5_000)) for _ in range(40)]
    contents += [b"\x1f\x8b" + content for content in contents[:10]]
    contents += [gzip.compress(content) for content in contents[:10]]
    objects = [
        ArchiveObject(path_of("source-a", 0, f"{number}.gz"), content, FIRST_DAY, [])
        for number, content in enumerate(contents)
    ]
    url = write_folder(tmp_path / "archive", objects)
    letters = tmp_path / "letters.ndjson"
    run = run_on(tap, url, letters)
    assert (run.status, run.messages.counts()) == (0, {}), run.stderr
    assert {letter["object"] for letter in letters_in(letters)} == {
        f"{url}/{made.path}" for made in objects
    }
