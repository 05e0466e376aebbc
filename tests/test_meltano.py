"""The main job as a user runs it: collector <- HTTP, then ``meltano run`` into real targets."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from hashlib import md5
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pytest

from tests.support.collector import READ_TOKEN, Collector, clean_environment
from tests.support.payloads import EMAIL_TYPES, OTHER_TYPES, STREAM_OF, documented, many
from tests.support.repository import REPOSITORY
from tests.support.store import fill
from tests.support.stored import url_of
from tests.support.tap import read_messages

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow

MELTANO = Path(sys.executable).with_name("meltano")


class Project:
    """A Meltano project in a folder of its own, with this repository's ``meltano.yml``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        text = (REPOSITORY / "meltano.yml").read_text(encoding="utf-8")
        text = text.replace("pip_url: -e .", f"pip_url: -e {REPOSITORY}")
        (folder / "meltano.yml").write_text(text, encoding="utf-8")

    def run(self, *arguments: str, **settings: str) -> str:
        """Run ``meltano``; return its log."""
        done = subprocess.run(
            [MELTANO, *arguments],
            cwd=self.folder,
            env=clean_environment() | settings,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=280,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return Project(tmp_path_factory.mktemp("project"))


def sent_values(payload: dict[str, Any]) -> tuple[str, ...]:
    """What a row must tell of a payload of :func:`many`, read off the payload itself."""
    happened_at = datetime.fromtimestamp(payload[f"{payload['type']}_at"], UTC)
    campaign = payload["campaign"]
    return (
        payload["user"].get("id") and str(payload["user"]["id"]),
        payload["user"]["email"],
        happened_at.strftime("%Y-%m-%dT%H:%M:%S"),
        campaign.get("name") or campaign["campaign_title"],
        campaign.get("subject") or campaign["email_subject"],
        payload.get("message_id") or campaign["message_id"],
    )


def row_values(row: dict[str, Any]) -> tuple[str, ...]:
    happened_at = row["timestamp"]
    if isinstance(happened_at, datetime):
        happened_at = happened_at.isoformat()
    return (
        row["user_id"],
        row["context_traits_email"],
        happened_at[:19],
        row["campaign_name"],
        row["email_subject"],
        row["email_id"],
    )


def post_all(collector: Collector, payloads: list[dict[str, Any]]) -> None:
    with ThreadPoolExecutor(8) as pool:
        for response in pool.map(collector.post, payloads):
            assert response.status_code == 200


class JsonLines:
    """The tables that ``target-jsonl`` writes."""

    loader = "target-jsonl"
    again = ("run", "tap-vero-segment", loader)

    def __init__(self, project: Project) -> None:
        self._folder = project.folder / "output"

    def rows(self, stream: str) -> list[dict[str, Any]]:
        path = self._folder / f"{stream}.jsonl"
        if not path.exists():
            return []
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


class DuckDB:
    """The tables that ``target-duckdb`` writes."""

    loader = "target-duckdb"
    again = ("schedule", "run", "daily-vero-to-duckdb")

    def __init__(self, project: Project) -> None:
        self._path = project.folder / "warehouse.duckdb"

    def rows(self, stream: str) -> list[dict[str, Any]]:
        with duckdb.connect(str(self._path), read_only=True) as connection:
            found = connection.execute(f"SELECT * FROM vero.{stream}")
            assert found.description is not None
            names = [column[0] for column in found.description]
            return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


@pytest.fixture
def source(request: pytest.FixtureRequest, collector: Collector) -> Iterator[dict[str, str]]:
    if request.param == "http":
        yield {"TAP_VERO_SEGMENT_SOURCE": collector.url, "TAP_VERO_SEGMENT_TOKEN": READ_TOKEN}
    else:
        yield {"TAP_VERO_SEGMENT_SOURCE": collector.store_url}


@pytest.mark.parametrize(
    ("tables_in", "source"),
    [
        pytest.param(JsonLines, "http", id="jsonl"),
        pytest.param(DuckDB, "sqlite", id="duckdb"),
    ],
    indirect=["source"],
)
def test_what_vero_sent_is_in_the_tables_once(
    project: Project,
    collector: Collector,
    tables_in: type[JsonLines | DuckDB],
    source: dict[str, str],
) -> None:
    tables = tables_in(project)
    payloads = many(300)
    # A loader once lost the first row of each table where nobody had an id in it.
    for payload in payloads[:60]:
        del payload["user"]["id"]
    post_all(collector, payloads[:60])
    post_all(collector, payloads[60:])
    post_all(collector, payloads[:20])  # delivered twice, stored once
    post_all(collector, [documented(vero_type) for vero_type in OTHER_TYPES])  # not selected
    job = ("run", "--full-refresh", "tap-vero-segment", tables.loader)

    def check(expected: list[dict[str, Any]]) -> None:
        for vero_type in EMAIL_TYPES:
            rows = tables.rows(STREAM_OF[vero_type])
            of_type = [payload for payload in expected if payload["type"] == vero_type]
            assert Counter(map(row_values, rows)) == Counter(map(sent_values, of_type))
            assert {row["event"] for row in rows} == {STREAM_OF[vero_type]}
        tracks = tables.rows("tracks")
        assert len(tracks) == len(expected)
        assert len({row["id"] for row in tracks}) == len(expected)

    project.run(*job, **source)
    check(payloads)

    log = project.run(*tables.again, **source)
    check(payloads)
    assert record_counts(log) == {}

    more = [payload for payload in many(330)[300:] if payload["type"] == "clicked"][:3]
    post_all(collector, more)
    log = project.run(*tables.again, **source)
    check([*payloads, *more])
    assert record_counts(log) == {"email_link_clicked": 3, "tracks": 3}


def record_counts(log: str) -> dict[str, int]:
    """Read the tap's record counts, other than none, off a run's log."""
    counts: Counter[str] = Counter()
    for line in log.splitlines():
        _, found, metric = line.partition("METRIC: ")
        if found and '"metric":"record_count"' in metric:
            point = json.loads(metric[: metric.rindex("}") + 1])
            counts[point["tags"]["stream"]] += point["value"]
    return {stream: count for stream, count in counts.items() if count}


def test_the_daily_schedule_is_listed(project: Project) -> None:
    listed = project.run("schedule", "list", "--format=json")
    schedules = json.loads(listed[listed.index("{") :])["schedules"]
    (daily,) = schedules["job"]
    assert daily["name"] == "daily-vero-to-duckdb"
    assert daily["cron_interval"] == "0 0 * * *"
    assert daily["job"]["tasks"] == ["tap-vero-segment target-duckdb"]
    assert schedules["elt"] == []


@pytest.mark.parametrize(
    ("plugin", "more"),
    [
        ("tap-vero-segment", {"batch_config": {"storage": {"root": "output"}, "batch_size": 5}}),
        ("target-segment", {}),
    ],
)
def test_the_sdks_settings_are_read_from_the_environment(
    project: Project, plugin: str, more: dict[str, Any]
) -> None:
    wanted = more | {
        "stream_maps": {"tracks": {"user_id": "md5(user_id)"}},
        "stream_map_config": {"salt": "pepper"},
        "faker_config": {"locale": ["en_US"]},
        "flattening_enabled": False,
        "flattening_max_depth": 2,
        "flattening_max_key_length": 60,
        "flattening_separator": "_",
    }
    prefix = plugin.upper().replace("-", "_")
    environment = {
        f"{prefix}_{name.upper()}": value if isinstance(value, str) else json.dumps(value)
        for name, value in wanted.items()
    }
    assert config_of(project, plugin, **environment).items() >= wanted.items()
    # Declared, a setting is not yet set.
    assert not config_of(project, plugin).keys() & wanted.keys()


def test_the_collectors_source_is_not_taken_for_an_archive(project: Project) -> None:
    archive = "tap-vero-segment--archive"
    collectors = {"TAP_VERO_SEGMENT_SOURCE": "https://collector.example"}
    assert "source" not in config_of(project, archive, **collectors)
    own = {"TAP_VERO_SEGMENT__ARCHIVE_SOURCE": "s3://bucket"}
    assert config_of(project, archive, **collectors, **own)["source"] == "s3://bucket"


def config_of(project: Project, plugin: str, **environment: str) -> dict[str, Any]:
    """The configuration that Meltano gives a plugin."""
    printed = project.run("config", "--unsafe", "print", plugin, **environment)
    config: dict[str, Any] = json.JSONDecoder().raw_decode(printed[printed.index("{\n") :])[0]
    return config


def test_a_stream_map_of_the_environment_masks_a_column(project: Project, tmp_path: Path) -> None:
    fill(tmp_path / "store.db", [documented("sent")])
    log = project.run(
        *("invoke", "tap-vero-segment"),
        TAP_VERO_SEGMENT_SOURCE=url_of(tmp_path / "store.db"),
        TAP_VERO_SEGMENT_STREAM_MAPS=json.dumps(
            {"*": {"context_traits_email": "md5(context_traits_email)"}}
        ),
    )
    lines = [line for line in log.splitlines() if line.startswith('{"type":')]
    records = read_messages(lines).records
    assert records.keys() == {"email_sent", "tracks"}
    for (record,) in records.values():
        assert record["context_traits_email"] == md5(b"steve@getvero.com").hexdigest()
    assert "steve@getvero.com" not in "".join(lines)


def test_the_demo_works_twice(project: Project) -> None:
    first = project.run("run", "demo")
    second = project.run("run", "demo")
    for log in (first, second):  # each from an empty store
        said = " ".join(log.split())
        assert "email_sent 101" in said
        assert "tracks 290" in said
        assert "Autumn collection (20261)" in said
        for step, emails, rate in (
            ("sent", 100, ""),
            ("delivered", 96, "96.0%"),
            ("opened", 58, "60.4%"),
            ("clicked", 21, "21.9%"),
            ("unsubscribed", 3, "3.1%"),
        ):
            assert f"{step} {emails} {emails} {rate}" in said
    # Each demo loads once and then finds nothing new: the counts are those of one load.
    assert record_counts(first)["tracks"] == 290
    assert record_counts(second)["tracks"] == 290


def test_selecting_a_stream_changes_a_line(project: Project) -> None:
    path = project.folder / "meltano.yml"
    before = path.read_text(encoding="utf-8")
    project.run("select", "tap-vero-segment", "email_failed", "*")
    after = path.read_text(encoding="utf-8")
    path.write_text(before, encoding="utf-8")
    assert after.replace("    - email_failed.*\n", "", 1) == before != after
