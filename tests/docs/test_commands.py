"""The documentation's commands, each typed in a new clone as it stands on its page.

What a reader has to put in is put in: an address, a secret, a bucket. A page whose blocks of
commands no test types is a failure.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import apsw
import duckdb
import psycopg
import pytest
import requests
import yaml

from tests.support import docs
from tests.support.archive import Maker, events_of
from tests.support.collector import WRITE_KEY, Collector
from tests.support.destination import Destination
from tests.support.docs import Reader
from tests.support.funnel import DuckDB, generated, load
from tests.support.payloads import EMAIL_TYPES, STREAM_OF, documented, many
from tests.support.repository import REPOSITORY
from tests.support.s3 import S3

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.postgres import Postgres

pytestmark = pytest.mark.slow

WALKED: set[str] = set()

CI = (REPOSITORY / ".ci" / "run").read_text(encoding="utf-8")


def walk(*pages: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Mark a test that types the blocks of some pages, which it gets as ``blocks``."""
    WALKED.update(pages)
    found = [block for page in pages for block in docs.blocks(page, "sh", "console")]
    return pytest.mark.parametrize("blocks", [found], ids=[pages[0]])


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Reader:
    return Reader(tmp_path_factory.mktemp("reader"))


def put_in(text: str, values: dict[str, str]) -> str:
    """Replace what stands for the reader's own; each must be there."""
    for old, new in values.items():
        assert old in text
        text = text.replace(old, new)
    return text


class TypedCollector(Collector):
    """A collector that a page's commands start, on a free port."""

    def __init__(self, reader: Reader, commands: str, **environment: str) -> None:
        super().__init__(reader.clone, reader.environment(VERO_COLLECTOR_PORT="0", **environment))
        # So that a signal comes to the collector, not to the shell.
        self._commands = re.sub(
            "^vero-collector serve", r"exec \g<0>", commands, flags=re.MULTILINE
        )

    def command(self, *arguments: str) -> list[str]:
        del arguments  # the page has its own
        return ["bash", "-euc", self._commands]


def typed(console: str) -> tuple[str, str]:
    """What a block of a console has typed, and what it shows as the answer."""
    first, _, shown = console.partition("\n")
    assert first.startswith("$ ")
    return first.removeprefix("$ "), shown


def assert_shows(printed: str, shown: str) -> None:
    """What is printed is what the page shows, but for figures, and for what stands as ``…``."""
    pattern = re.sub(r"\d+", r"\\d+", re.escape(shown.strip()))
    pattern = re.sub(r"(\\[ -])+", "[ -]+", pattern)
    assert re.search(pattern.replace("…", "[^\0]*?"), printed), printed


def counted(path: Path) -> dict[str, int]:
    """The rows of each table in the schema ``vero`` of a DuckDB file."""
    with duckdb.connect(str(path), read_only=True) as connection:
        tables = connection.execute(
            "SELECT table_name FROM duckdb_tables() WHERE schema_name = 'vero'"
        ).fetchall()
        return {
            table: connection.execute(f"SELECT COUNT(DISTINCT id) FROM vero.{table}").fetchall()[0][
                0
            ]
            for (table,) in tables
        }


@walk("start/demo.md")
def test_the_demo(blocks: list[str]) -> None:
    run_by_ci(blocks)


@walk("contributing.md")
def test_the_tests_and_the_checks(blocks: list[str]) -> None:
    run_by_ci(blocks)


def run_by_ci(blocks: list[str]) -> None:
    """CI runs them in a clone of its own, as a part of which this test runs."""
    run = {line.strip() for line in CI.splitlines()}
    for block in blocks:
        assert set(block.strip().split(" && ")) <= run


@walk("start/vero.md", "loading/other-targets.md", "start/without-a-clone.md")
def test_from_nothing_to_a_table(blocks: list[str], reader: Reader, database: str) -> None:
    install, init, serve, status, to_duckdb, to_postgres, install_alone, by_hand = blocks
    payloads = many(60)
    kinds = Counter(STREAM_OF[payload["type"]] for payload in payloads) | {"tracks": len(payloads)}

    reader.type(install)
    command, shown = typed(init)
    printed = reader.type(command)
    assert_shows(printed, shown)
    path = printed.rpartition("https://collector.example")[2].split()[0]

    command, shown = typed(serve)
    with TypedCollector(reader, command) as collector:
        for payload in payloads:
            posted = requests.post(collector.url + path, json=payload, timeout=30)
            assert posted.status_code == 200
        assert_shows(collector.log(), shown)

        command, shown = typed(status)
        assert_shows(reader.type(command), shown)

        reader.type(to_duckdb)
        assert counted(reader.clone / "warehouse.duckdb") == kinds

        token = re.search(r"READ_TOKEN=(\S+)", (reader.clone / ".env").read_text())
        assert token
        values = {"https://collector.example": collector.url, "TOKEN=…": f"TOKEN={token[1]}"}
        theirs = target_postgres(database)
        for name in ("HOST", "DATABASE", "USER", "PASSWORD"):
            (stands,) = re.findall(rf"TARGET_POSTGRES_{name}=\S+", to_postgres)
            values[stands] = f"TARGET_POSTGRES_{name}={theirs[f'TARGET_POSTGRES_{name}']}"
        port = theirs["TARGET_POSTGRES_PORT"]
        reader.type(put_in(to_postgres, values), TARGET_POSTGRES_PORT=port)
        with psycopg.connect(database) as connection:
            for table, count in kinds.items():
                found = connection.execute(f"SELECT COUNT(*) FROM vero.{table}".encode())
                assert found.fetchall() == [(count,)]
        assert collector.stop() == 0

    reader.type(put_in(install_alone, {"tap-vero-segment": "."}))
    for count in (len(payloads), 0):
        before = lines_in(reader.clone, "tracks*.jsonl")
        reader.type(by_hand)
        assert lines_in(reader.clone, "tracks*.jsonl") - before == count


@walk("operating/completion.md")
def test_completion_is_written(blocks: list[str], reader: Reader) -> None:
    (block,) = blocks
    reader.type("pip install --quiet .")
    reader.type(block)
    folder = reader.home / ".local/share/bash-completion/completions"
    for command in ("vero-collector", "tap-vero-segment", "target-segment"):
        assert f"complete -o nosort -F _{command.replace('-', '_')}_completion {command}" in (
            folder / command
        ).read_text(encoding="utf-8")


@walk("reports/funnel.md")
def test_the_funnel(blocks: list[str], reader: Reader, tmp_path: Path) -> None:
    (block,) = blocks
    reader.type("pip install --quiet '.[report]'")
    load(DuckDB(tmp_path / "warehouse.duckdb"), generated(50))
    printed = reader.type(f"cd {tmp_path} && {block}")
    assert "email_sent" in printed
    assert (tmp_path / "funnel.csv").read_text(encoding="utf-8").startswith("campaign_id,")
    assert "<html" in (tmp_path / "funnel.html").read_text(encoding="utf-8")


EMAIL_STREAMS = [STREAM_OF[vero_type] for vero_type in EMAIL_TYPES]
BUCKET = "my-segment-bucket"


@pytest.fixture
def s3(tmp_path: Path) -> Iterator[S3]:
    with S3(tmp_path) as server:
        yield server


@walk("start/segment-archive.md")
def test_an_archive_is_read(blocks: list[str], reader: Reader, s3: S3) -> None:
    (block,) = blocks
    objects = Maker().small(3, 100)
    s3.make_bucket(BUCKET)
    s3.put(BUCKET, objects)
    warehouse = reader.clone / "warehouse.duckdb"
    warehouse.unlink(missing_ok=True)

    reader.type(block, **s3.environment)

    expected = Counter(stream for event in events_of(objects) for stream in event.streams)
    found = counted(warehouse)
    assert {stream: found[stream] for stream in (*EMAIL_STREAMS, "tracks")} == {
        stream: expected[stream] for stream in (*EMAIL_STREAMS, "tracks")
    }


@walk("start/segment-migration.md")
def test_history_and_what_is_new(
    blocks: list[str], reader: Reader, collector: Collector, s3: S3, database: str
) -> None:
    beside, history = blocks
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    objects = Maker().small(2, 50)
    s3.make_bucket(BUCKET)
    s3.put(BUCKET, objects)
    payloads = many(20)
    for payload in payloads:
        assert collector.post(payload).status_code == 200
    settings = target_postgres(database) | s3.environment
    settings["TAP_VERO_SEGMENT_SOURCE"] = collector.store_url

    reader.type(beside, **settings)
    reader.type(put_in(history, {"2026-12-01": today}), **settings)

    archived = sum("tracks" in event.streams for event in events_of(objects))
    with psycopg.connect(database) as connection:
        for schema, count in (
            ("vero_events", len(payloads)),
            ("vero_all", len(payloads) + archived),
        ):
            found = connection.execute(f"SELECT COUNT(*) FROM {schema}.tracks".encode())
            assert found.fetchall() == [(count,)]


@walk("loading/target-segment.md")
def test_into_segment(
    blocks: list[str], reader: Reader, collector: Collector, tmp_path: Path
) -> None:
    (block,) = blocks
    payloads = many(20)
    for payload in payloads:
        assert collector.post(payload).status_code == 200
    (tmp_path / "other").mkdir()
    with Collector(tmp_path / "other") as workspace:
        commands = put_in(
            block,
            {
                "WRITE_KEY=…": f"WRITE_KEY={WRITE_KEY}",
                "https://events.eu1.segmentapis.com": workspace.url,
            },
        )
        reader.type(commands, TAP_VERO_SEGMENT_SOURCE=collector.store_url)
        arrived = [json.loads(line) for line in workspace.get("/v1/events").iter_lines()]
    assert Counter(call["userId"] for call in arrived) == Counter(
        str(payload["user"]["id"]) for payload in payloads
    )


@walk("collector/postgresql.md")
def test_a_collector_on_postgresql(blocks: list[str], reader: Reader, database: str) -> None:
    (block,) = blocks
    commands = put_in(block, {"postgresql://collector@db.example/events": database})
    with TypedCollector(reader, commands, VERO_COLLECTOR_WEBHOOK_TOKEN="token") as collector:
        assert collector.post(documented(), "token").status_code == 200
        assert collector.stop() == 0
    with psycopg.connect(database) as connection:
        found = connection.execute("SELECT COUNT(*) FROM vero_collector.events")
        assert found.fetchall() == [(1,)]


@walk("collector/retention.md")
def test_events_are_put_away(
    blocks: list[str], reader: Reader, collector: Collector, s3: S3
) -> None:
    (block,) = blocks
    reader.type("pip install --quiet .")
    s3.make_bucket("my-bucket")
    assert collector.post(documented()).status_code == 200
    tomorrow = f"{datetime.now(UTC) + timedelta(days=1):%Y-%m-%d}"
    commands = put_in(block, {"2026-10-01": tomorrow})

    reader.type(commands, VERO_COLLECTOR_STORE=collector.store_url, **s3.environment)

    keys = s3.client().list_objects_v2(Bucket="my-bucket", Prefix="vero/")["Contents"]
    assert len(keys) == 1
    assert collector.get("/v1/events").content == b""


@walk("collector/forwarding.md")
def test_webhooks_are_forwarded(blocks: list[str], reader: Reader, collector: Collector) -> None:
    (block,) = blocks
    reader.type("pip install --quiet .")
    assert collector.post(documented()).status_code == 200
    with Destination() as server:
        commands = put_in(block, {"https://app.example": server.url})

        reader.type(commands, VERO_COLLECTOR_STORE=collector.store_url)

    assert [each.path for each in server.accepted] == ["/webhooks/vero"]


@walk("collector/import.md")
def test_history_is_brought_in(blocks: list[str], reader: Reader, tmp_path: Path) -> None:
    (block,) = blocks
    reader.type("pip install --quiet .")
    (tmp_path / "kept.ndjson").write_text("\n".join(map(json.dumps, many(20))))
    store = f"sqlite:///{tmp_path}/store.db"
    commands = put_in(block, {"history/": f"{tmp_path}/kept.ndjson"})

    printed = reader.type(commands, VERO_COLLECTOR_STORE=store)

    assert "would be imported: 20\n" in printed
    assert "imported: 20\n" in printed


@walk("collector/finding.md")
def test_events_are_found(blocks: list[str], reader: Reader, collector: Collector) -> None:
    (block,) = blocks
    reader.type("pip install --quiet .")
    assert collector.post(documented("bounced")).status_code == 200
    commands = put_in(block, {"ann@example.com": "STEVE@getvero.com", "2026-11-01": "2015-06-01"})

    printed = reader.type(commands, VERO_COLLECTOR_STORE=collector.store_url)

    assert printed.count("Email Bounced") == 3
    written = (reader.clone / "events.csv").read_text(encoding="utf-8")
    assert "email_bounced,Email Bounced,123" in written


@walk("operating/deploy.md", "operating/backup.md", "operating/schedule.md")
def test_deploying(blocks: list[str], reader: Reader, collector: Collector) -> None:
    """No user is made and no container built here: what the commands name is there."""
    service, image, services, backup, restore, schedule = blocks
    (unit,) = docs.blocks("operating/deploy.md", "ini")
    settings = dict(re.findall(r"^(\w+)=(.+)$", unit, re.MULTILINE))
    assert (
        f"--owner {settings['User']} --group {settings['User']} {settings['WorkingDirectory']}\n"
        in service
    )
    assert settings["ExecStart"].removesuffix(" serve") in service
    assert f"--chdir={settings['WorkingDirectory']} " in service
    stages = re.findall(r" AS (\S+)$", (REPOSITORY / "Containerfile").read_text(), re.MULTILINE)
    assert re.findall(r"--target (\S+)", image) == ["collector"]
    assert "collector" in stages
    compose = yaml.safe_load((REPOSITORY / "compose.yaml").read_text(encoding="utf-8"))["services"]
    assert set(re.findall(r"(?:logs --follow|exec) (\S+)", services)) <= set(compose)

    posted = collector.post(documented())
    assert posted.status_code == 200
    reader.type("pip install --quiet .")
    reader.type(f"cd {collector.folder} && {backup}")
    with apsw.Connection(str(collector.folder / "copy.db")) as copy:
        assert copy.execute("SELECT COUNT(*) FROM events").get == 1
    collector.stop()
    assert "1 events" in reader.type(f"cd {collector.folder} && {restore}")

    printed = reader.type(schedule, TAP_VERO_SEGMENT_SOURCE=collector.store_url)
    assert "daily-vero-to-duckdb" in printed
    assert "Block run completed" in printed


def test_a_dump_is_put_back(postgres: Postgres, database: str, tmp_path: Path) -> None:
    (dump,) = (span for span in docs.spans() if span.startswith("pg_dump "))
    with Collector(tmp_path, store_url=database) as collector:
        assert collector.post(documented()).status_code == 200
    other = postgres.create("restored")

    for command in (
        [*dump.split(), "--file", str(tmp_path / "dump"), database],
        ["pg_restore", "--dbname", other, str(tmp_path / "dump")],
    ):
        done = subprocess.run(
            [postgres.binaries / command[0], *command[1:]],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    with Collector(tmp_path, store_url=other) as collector:
        assert collector.post(documented()).status_code == 200  # the same one again
        assert collector.post(documented("opened")).status_code == 200
        events = [json.loads(line) for line in collector.get("/v1/events").iter_lines()]
    assert [event["event"] for event in events] == ["Email Sent", "Email Opened"]


def target_postgres(database: str) -> dict[str, str]:
    """The settings of Meltano's ``target-postgres`` for a database of the tests."""
    given = psycopg.conninfo.conninfo_to_dict(database)
    return {
        "TARGET_POSTGRES_HOST": str(given["host"]),
        "TARGET_POSTGRES_PORT": str(given["port"]),
        "TARGET_POSTGRES_DATABASE": str(given["dbname"]),
        "TARGET_POSTGRES_USER": str(given["user"]),
        "TARGET_POSTGRES_PASSWORD": "none",
    }


def lines_in(folder: Path, pattern: str) -> int:
    return sum(len(path.read_bytes().splitlines()) for path in folder.glob(pattern))


WALKED_ELSEWHERE = {
    "collector/segment-calls.md": "tests/collector/test_segment_endpoint.py",
    "reports/dbt.md": "tests/report/test_dbt.py",
}


def test_each_block_is_walked() -> None:
    pages = {each.page for each in docs.BLOCKS if each.language in {"sh", "console"}}
    pages.remove("README.md")  # its blocks are on other pages too
    assert pages == WALKED | set(WALKED_ELSEWHERE)
    for page, path in WALKED_ELSEWHERE.items():
        assert f'docs.blocks("{page}", "sh")' in (REPOSITORY / path).read_text(encoding="utf-8")


# Not the synopses: `vero-collector init [--url URL]`.
_COMMAND = re.compile(
    r"(?:apt-get|curl|docker|helm|pg_dump|pip|python|systemctl|tap-vero-segment|target-segment|uvx?"
    r"|vero-collector) (?:[^\[(]*|.*\.\[.*)$"
)

RUN_BY = {
    ".ci/run": {
        "apt-get install postgresql chromium",
        "pip install uv",
        "uv run pytest",
        "uv run pytest -m slow",
        "uv run pytest -n0 tests/tap",
    },
    "tests/docs/test_commands.py": {
        "pg_dump --format=custom --schema=vero_collector",
        "pip install '.[report]'",
        "uvx meltano invoke vero-collector:report",
        "vero-collector export",
        "vero-collector init",
        "vero-collector serve",
        "vero-collector status",
    },
    "tests/test_meltano.py": {"uvx meltano invoke vero-collector:report-demo"},
    "tests/packaging/test_distributions.py": {
        "pip install '.[dask]'",
        "pip install '.[parquet]'",
        "pip install '.[collector,postgres,report]'",
        "pip install '.[s3]'",
    },
    "tests/sources/test_trial.py": {"tap-vero-segment --config=ENV --test"},
    "tests/packaging/hub.py": {"tap-vero-segment --about"},
    "tests/packaging/test_hub.py": {"uv run python -m tests.packaging.hub"},
    "tests/docs/test_pages.py": {"uv run python -m tests.docs.reference"},
    "tests/targets/test_matrix.py": {
        "uv run python -m tests.targets.matrix --markdown docs/targets.md",
    },
    "tests/collector/test_demo.py": {"vero-collector demo", "vero-collector sample"},
    "tests/collector/test_erase.py": {
        "vero-collector erase",
        "vero-collector erase --email ADDRESS",
        "vero-collector export --forget URL",
    },
    "tests/collector/test_import.py": {"vero-collector import"},
    "tests/report/test_command.py": {"vero-collector report --html"},
    "tests/collector/test_status.py": {"vero-collector status --json"},
    "tests/collector/test_check.py": {"vero-collector check"},
    "tests/collector/test_dead_letters.py": {
        "vero-collector dead-letters delete 7 9",
        "vero-collector dead-letters list",
        "vero-collector dead-letters replay",
    },
    "tests/collector/test_faults.py": {
        "vero-collector repair-clock",
        "vero-collector repair-clock --dry-run",
    },
    "tests/collector/test_health.py": {"curl -i https://collector.example/health"},
}
"""The commands in the running text, by what runs them or the like of them."""

NOT_RUN = {
    "helm install --repo https://helm.dask.org --create-namespace -n dask-operator"
    " --generate-name dask-kubernetes-operator": "no Kubernetes",
    "docker compose up --detach": "no engine for containers",
    "docker network inspect bridge": "no engine for containers",
    "systemctl enable --now vero-collector": "no systemd",
    "systemctl reload vero-collector": "no systemd",
    "uv run python -m tests.benchmarks": "takes hours",
    "python -m tests.support.overload": "takes a machine of its own",
    "uv run pre-commit install": "changes the clone's hooks",
}
"""Commands that are not run, and why."""


def test_each_command_of_the_running_text_is_run_or_is_known_not_to_be() -> None:
    found = {span for span in docs.spans() if re.match(_COMMAND, span)}
    run = set().union(*RUN_BY.values())
    assert found == run | set(NOT_RUN)
    assert not run & set(NOT_RUN)
    for path in RUN_BY:
        assert (REPOSITORY / path).is_file()
