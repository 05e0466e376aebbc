"""Batch files in folders and object stores, and what is told where they cannot be written."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.archive import Maker, write_folder
from tests.support.batches import JSONL, PARQUET, batches_to, local, unpacked
from tests.support.s3 import ACCESS_KEY, S3, SECRET_KEY

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.forked_tap import ForkedTap


@pytest.fixture
def source(tmp_path: Path) -> dict[str, Any]:
    return {"source": write_folder(tmp_path / "archive", Maker().small(6, 200))}


def fetcher(s3: S3) -> Callable[[str], bytes]:
    client = s3.client()

    def fetch(url: str) -> bytes:
        bucket, _, key = url.removeprefix("s3://").partition("/")
        content: bytes = client.get_object(Bucket=bucket, Key=key)["Body"].read()
        return content

    return fetch


@pytest.mark.parametrize("encoding", [JSONL, PARQUET], ids=["jsonl", "parquet"])
@pytest.mark.parametrize("way", ["environment", "params"])
def test_files_in_a_bucket_hold_what_the_records_would(
    tap: ForkedTap, s3: S3, source: dict[str, Any], way: str, encoding: dict[str, Any]
) -> None:
    bucket = f"batches-{way}-{encoding['format']}"
    s3.make_bucket(bucket)
    plain = tap.good(source)
    given: dict[str, Any] = {"params": s3.options} if way == "params" else {}
    batches = batches_to(f"s3://{bucket}/a/prefix", 300, encoding, **given)
    run = tap.run(source | batches, env=s3.environment if way == "environment" else {})
    assert run.status == 0, run.stderr
    assert SECRET_KEY not in run.stderr
    assert SECRET_KEY.encode() not in run.stdout
    batched = unpacked(run.messages, fetcher(s3))
    assert batched.records == plain.records
    assert batched.state == plain.state
    urls = [url for message in run.messages.all for url in message.get("manifest", [])]
    assert len(set(urls)) == len(urls) >= 3 * 8
    assert all(url.startswith(f"s3://{bucket}/a/prefix/part-") for url in urls)
    listed = s3.client().list_objects_v2(Bucket=bucket)["Contents"]
    assert {f"s3://{bucket}/{found['Key']}" for found in listed} == set(urls)


def test_a_bucket_that_is_not_there_is_told_without_a_batch(
    tap: ForkedTap, s3: S3, source: dict[str, Any]
) -> None:
    run = tap.run(source | batches_to("s3://no-such-bucket"), env=s3.environment)
    assert run.status == 1
    assert b"BATCH" not in run.stdout
    (error,) = [line for line in run.stderr.splitlines() if "ERROR" in line]
    assert "batch_config.storage.root" in error
    assert "there is no such bucket" in error
    assert ACCESS_KEY not in run.stderr


def test_runs_share_a_folder_without_a_name_in_common(
    tap: ForkedTap, source: dict[str, Any], tmp_path: Path
) -> None:
    folder = tmp_path / "new" / "files"
    first, second = (
        {
            url: local(url)
            for message in tap.good(source | batches_to(folder)).all
            for url in message.get("manifest", [])
        }
        for _ in range(2)
    )
    assert not first.keys() & second.keys()
    assert {url: local(url) for url in first} == first
    assert len(list(folder.iterdir())) == len(first) + len(second)


@pytest.mark.parametrize("root", ["batches", "file://batches"])
def test_a_folder_may_be_in_the_working_folder(
    tap: ForkedTap, source: dict[str, Any], tmp_path: Path, root: str
) -> None:
    messages = tap.good(source | batches_to(root))
    urls = [url for message in messages.all for url in message.get("manifest", [])]
    assert urls
    assert all(url.startswith(tmp_path.as_uri()) and "/batches/part-" in url for url in urls)
    assert unpacked(messages).records == tap.good(source).records


def test_a_folder_that_cannot_be_made_is_told(
    tap: ForkedTap, source: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    run = tap.run(source | batches_to(tmp_path / "file" / "batches"))
    assert run.status == 1
    assert "batch_config.storage.root: cannot write to" in run.stderr
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize(
    ("mode", "expected"),
    [(None, 0o600), (0o755, 0o600), (0o2770, 0o640)],
    ids=["new", "old", "g+s"],
)
def test_files_are_as_private_as_the_store_unless_the_folder_is_a_groups(
    tap: ForkedTap, source: dict[str, Any], tmp_path: Path, mode: int | None, expected: int
) -> None:
    folder = tmp_path / "batches"
    if mode is not None:
        folder.mkdir()
        folder.chmod(mode)
    messages = tap.good(source | batches_to(folder))
    urls = [url for message in messages.all for url in message.get("manifest", [])]
    assert urls
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.glob("part-*")} == {expected}
    assert stat.S_IMODE(folder.stat().st_mode) == (mode or 0o700)
