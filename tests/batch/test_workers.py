"""Backfills by a real Dask cluster: what comes out is what one process gives."""

from __future__ import annotations

import json
import pickle
import signal
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import pytest

from tap_vero_segment.archive.objects import StoredObject
from tap_vero_segment.errors import SettingError
from tap_vero_segment.tap.settings import Settings
from tap_vero_segment.tap.workers.cluster import Cluster
from tap_vero_segment.tap.workers.job import Job, Task
from tap_vero_segment.tap.workers.task import write_object
from tests.support.archive import Maker, events_of, lines_of, path_of, write_folder, zipped
from tests.support.batches import PARQUET, batches_to, unpacked
from tests.support.dask import Dask
from tests.support.inline_tap import inline_tap
from tests.support.s3 import S3, SECRET_KEY
from tests.support.stored import ids_by_stream, ids_of
from tests.support.streams import (
    ALL_STREAMS,
    DEFAULT_STREAMS,
    bookmark_of,
    catalog_of,
    states_never_run_ahead,
)
from tests.support.tap import read_messages, select

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.archive import ArchiveObject
    from tests.support.forked_tap import ForkedTap

OBJECTS = 24
LINES = 200


@pytest.fixture(scope="module")
def dask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dask]:
    with Dask(tmp_path_factory.mktemp("dask")) as running:
        yield running


@pytest.fixture(scope="session")
def archive(s3: S3) -> list[ArchiveObject]:
    """An archive in a bucket of S3; its objects are of four seconds, as S3 knows no less."""
    made = Maker().small(OBJECTS, LINES)
    s3.make_bucket("dask")
    for quarter in range(4):
        s3.put("dask", made[quarter * OBJECTS // 4 : (quarter + 1) * OBJECTS // 4])
        time.sleep(1 - time.time() % 1 if quarter < 3 else 0)
    return s3.times("dask", made)


def source_of(s3: S3) -> dict[str, Any]:
    return {"source": "s3://dask", "storage_options": s3.options, "lookback_seconds": 0}


def to_bucket(s3: S3, name: str, **options: Any) -> dict[str, Any]:
    """Settings for files in a folder of the same bucket's neighbour."""
    return batches_to(f"s3://{name}", params=s3.options, **options)


def fetcher(s3: S3) -> Callable[[str], bytes]:
    client = s3.client()

    def fetch(url: str) -> bytes:
        bucket, _, key = url.removeprefix("s3://").partition("/")
        content: bytes = client.get_object(Bucket=bucket, Key=key)["Body"].read()
        return content

    return fetch


MAPS = {"email_opened": {"__alias__": "opened"}, "email_sent": {"user_id": "md5(user_id)"}}


@pytest.mark.slow
def test_rows_and_states_are_those_of_one_process(
    tap: ForkedTap, s3: S3, archive: list[ArchiveObject], dask: Dask
) -> None:
    bucket = "dask-rows"
    s3.make_bucket(bucket)
    catalog = catalog_of(*ALL_STREAMS - {"email_bounced"})
    for stream in ALL_STREAMS:
        select(catalog, stream, column="context_traits_email", selected=False)
    config = source_of(s3) | {"stream_maps": MAPS}
    batches = to_bucket(s3, bucket, size=120, encoding=PARQUET)
    alone = tap.good(config, catalog=catalog)
    run = tap.run(config | batches | {"dask_scheduler": dask.address}, catalog=catalog)
    assert run.status == 0, run.stderr
    together = unpacked(run.messages, fetcher(s3))
    assert together.records == alone.records
    assert together.schemas == alone.schemas
    assert together.state == alone.state
    assert {"opened", "tracks"} <= together.records.keys()
    assert len(together.states) >= len({made.modified_at for made in archive})
    states_never_run_ahead(
        read_messages(
            json.dumps(message | {"stream": "email_opened"})
            if message.get("stream") == "opened"
            else json.dumps(message)
            for message in together.all
        ),
        [event for event in events_of(archive) if event.streams[0] != "email_bounced"],
    )
    again = tap.good(
        config | batches | {"dask_scheduler": dask.address}, catalog=catalog, state=together.state
    )
    assert {message["type"] for message in again.all} == {"SCHEMA", "STATE"}
    for text in (run.stderr, dask.log.read_text()):
        assert SECRET_KEY not in text
        assert "@example.com" not in text


def test_a_stream_that_was_selected_later_catches_up(
    tap: ForkedTap, s3: S3, archive: list[ArchiveObject], dask: Dask
) -> None:
    s3.make_bucket("dask-later")
    batches = to_bucket(s3, "dask-later") | {"dask_scheduler": dask.address}
    first = tap.good(source_of(s3), catalog=catalog_of("tracks"))
    later = tap.good(
        source_of(s3) | batches, state=first.state, catalog=catalog_of("tracks", "email_sent")
    )
    got = ids_of(unpacked(later, fetcher(s3)).records)
    assert got == {"email_sent": ids_by_stream(events_of(archive))["email_sent"]}


@pytest.mark.slow
@pytest.mark.parametrize("way", ["worker", "SIGTERM", "SIGKILL"])
def test_what_is_killed_in_mid_run_loses_and_doubles_nothing(
    tap: ForkedTap, s3: S3, archive: list[ArchiveObject], tmp_path: Path, dask: Dask, way: str
) -> None:
    bucket = f"dask-killed-{way.lower()}"
    s3.make_bucket(bucket)
    expected = ids_by_stream(events_of(archive))
    got: dict[str, list[str]] = {}
    with Dask(tmp_path) if way == "worker" else nullcontext(dask) as cluster:
        config = source_of(s3) | to_bucket(s3, bucket)
        config |= {"dask_scheduler": cluster.address}
        state = None
        for attempt in range(2):
            with tap.start(config, state=state) as running:
                output = b""
                # The first states are out, most objects still to come.
                while attempt == 0 and output.count(b'"type":"BATCH"') < 64:
                    line = running.stdout.readline()
                    assert line, running.stderr()
                    output += line
                if attempt == 0 and way == "worker":
                    cluster.workers[0].kill()
                elif attempt == 0:
                    running.send_signal(signal.Signals[way])
                output += running.stdout.read()
                status = running.wait()
            assert status == 0 or (attempt, way) == (0, "SIGKILL"), running.stderr()
            messages = unpacked(read_messages(output.split(b"\n")[:-1]), fetcher(s3))
            states_never_run_ahead(messages, events_of(archive), got)
            state = messages.state
            for stream, records in messages.records.items():
                # What comes after the last bookmark comes again.
                bookmark = bookmark_of(state, stream) or ""
                got.setdefault(stream, []).extend(
                    record["id"] for record in records if record["loaded_at"] <= bookmark
                )
            assert len(got["tracks"]) > 0
            assert attempt == 1 or way == "worker" or len(got["tracks"]) < len(expected["tracks"])
            if way == "worker":
                break
    assert got == {stream: expected[stream] for stream in DEFAULT_STREAMS}


def test_a_scheduler_that_goes_away_ends_the_run_with_a_clear_error(
    tap: ForkedTap, s3: S3, archive: list[ArchiveObject], tmp_path: Path
) -> None:
    s3.make_bucket("dask-gone")
    with Dask(tmp_path, workers=1) as cluster:
        config = source_of(s3) | to_bucket(s3, "dask-gone", size=50)
        with tap.start(config | {"dask_scheduler": cluster.address}) as running:
            while b"BATCH" not in running.stdout.readline():
                pass
            cluster.scheduler.kill()
            running.stdout.read()
            assert running.wait(timeout=90) == 1
            errors = [line for line in running.stderr().splitlines() if " ERROR " in line]
        assert "is gone" in running.stderr()
        assert any("dask_scheduler: " in error for error in errors), errors
        assert "Traceback" not in running.stderr(), running.stderr()


def test_no_scheduler_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tap_vero_segment.tap.workers.cluster._CONNECT", "0.5s")
    with pytest.raises(SettingError, match=r"no scheduler .*127\.0\.0\.1:9") as caught:
        Cluster("tcp://127.0.0.1:9")
    assert caught.value.setting == "dask_scheduler"


def damaged(folder: Path) -> str:
    """An archive of which one line in the middle cannot be read."""
    made = Maker().small(5, 50)
    content = lines_of([]) + b'{"type":"track"\n'
    made[2] = made[2]._replace(path=path_of("source-a", 1, "bad.gz"), content=zipped(content))
    return write_folder(folder, made)


def test_a_line_that_cannot_be_read_is_told_as_by_one_process(
    tap: ForkedTap, dask: Dask, tmp_path: Path
) -> None:
    config = {"source": damaged(tmp_path / "archive")} | batches_to(tmp_path / "files")
    alone = tap.run(config)
    together = tap.run(config | {"dask_scheduler": dask.address})
    assert alone.status == together.status == 1

    def told(text: str) -> str:
        (error,) = [line for line in text.splitlines() if " ERROR " in line]
        return error[error.index("source: ") :]

    assert told(together.stderr) == told(alone.stderr)
    assert "bad.gz: line 1" in told(alone.stderr)
    assert together.stdout.count(b'"BATCH"') >= 2
    assert not list((tmp_path / "files").glob(".*"))


def test_dead_letters_are_kept_as_by_one_process(
    tap: ForkedTap, dask: Dask, tmp_path: Path
) -> None:
    config = {"source": damaged(tmp_path / "archive")} | batches_to(tmp_path / "files")
    letters = {}
    messages = {}
    for way, scheduler in (("alone", {}), ("together", {"dask_scheduler": dask.address})):
        path = tmp_path / way
        run = tap.run(config | scheduler | {"dead_letter": str(path)})
        assert run.status == 0, run.stderr
        messages[way] = unpacked(run.messages)
        letters[way] = path.read_text()
        count = len(letters[way].splitlines())
        assert f"dead letters of this run: {count}, appended to {path}" in run.stderr
    assert letters["together"] == letters["alone"] != ""
    assert messages["together"].records == messages["alone"].records
    assert messages["together"].state == messages["alone"].state


@pytest.mark.parametrize(
    ("change", "setting", "said"),
    [
        ({"dask_scheduler": "host"}, "dask_scheduler", "tcp://host:8786"),
        ({"dask_scheduler": "tcp://host"}, "dask_scheduler", "tcp://host:8786"),
        ({"source": "sqlite:///x.db"}, "dask_scheduler", "archive"),
        ({"batch_config": None}, "dask_scheduler", "batch_config"),
    ],
)
def test_what_does_not_go_with_workers_is_told(
    tmp_path: Path, change: dict[str, Any], setting: str, said: str
) -> None:
    config = {"source": tmp_path.as_uri(), "dask_scheduler": "tcp://host:1"}
    config |= batches_to(tmp_path)
    assert Settings.read(config).scheduler == "tcp://host:1"
    with pytest.raises(SettingError, match=said) as caught:
        Settings.read(config | change)
    assert caught.value.setting == setting


def job_of(tmp_path: Path, root: Path) -> Job:
    config = {"source": write_folder(tmp_path / "archive", Maker().small(1, 5))}
    config |= batches_to(root) | {"dask_scheduler": "tcp://host:1"}
    with inline_tap(config | {"storage_options": {"secret_access_key": SECRET_KEY}}) as tap:
        return Job(type(tap), tap.config, tap.catalog_dict)


def test_a_job_is_small_and_its_text_tells_no_secret(tmp_path: Path) -> None:
    job = job_of(tmp_path, tmp_path)
    assert repr(job) == str(job) == f"Job({job.run})"
    assert len(pickle.dumps(job)) < 10_000


def test_a_worker_whose_folder_is_another_one_writes_nothing(tmp_path: Path) -> None:
    root = tmp_path / "files"
    root.mkdir()
    job = job_of(tmp_path, root)
    found = next((tmp_path / "archive").rglob("*.gz"))
    path = str(found.relative_to(tmp_path / "archive"))
    task = Task(0, StoredObject(path, 0, found.stat().st_size, None), ("tracks",))
    written = write_object(job, task)
    assert written.problem is not None
    assert written.problem.setting == "batch_config.storage.root"
    assert "share it" in written.problem.text
    assert not list(root.iterdir())
    (root / f".{job.run}.run").touch()
    assert write_object(job, task).problem is None
    assert len(list(root.glob("part-*"))) == 1


def test_a_worker_of_another_version_says_so(tmp_path: Path) -> None:
    job = job_of(tmp_path, tmp_path)
    job.run, job.version = "another-run", "0.0.0"
    task = Task(0, StoredObject("x.gz", 0, 1, None), ("tracks",))
    written = write_object(job, task)
    assert written.problem is not None
    assert "version" in written.problem.text
