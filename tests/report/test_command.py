"""``vero-collector report``: what it prints and writes, and what it never does."""

from __future__ import annotations

import csv
import os
import pty
import subprocess
import sys
import termios
from io import StringIO
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.support.collector import clean_environment, collector_command, run_collector
from tests.support.funnel import DuckDB, PostgreSQL, event, load

if TYPE_CHECKING:
    from pathlib import Path

AT = 1_795_425_840
USER = {"id": 1, "email": "someone@example.com"}
HOSTILE = (
    "\x1b[31mred\x1b]0;title\x07 \x9b2J\r\n\u202egnp.exe",
    "[bold red]markup[/] [link=https://evil.example]x[/link] :smile:",
    "=cmd|' /C calc'!A0",
    "\t=1+1",
    "+SUM(A1)",
    "@x",
    "-2+3",
    "\N{FULLWIDTH EQUALS SIGN}1+1",
)


def sent(name: str | None, number: int) -> dict[str, object]:
    return event("sent", AT, user=USER, campaign={"id": number, "name": name})


@pytest.fixture
def tables(tmp_path: Path) -> DuckDB:
    """Some campaigns with names that only somebody hostile would give."""
    warehouse = DuckDB(tmp_path / "warehouse.duckdb")
    load(warehouse, [sent(name, number) for number, name in enumerate(HOSTILE)])
    return warehouse


def test_names_are_plain_text_in_a_pipe(tables, tmp_path):
    done = run_collector("report", *tables.options, cwd=tmp_path, env={"FORCE_COLOR": "1"})

    assert done.returncode == 0, done.stderr
    assert all(each.isprintable() or each == "\n" for each in done.stdout)
    assert HOSTILE[2] in done.stdout
    red = run_collector("report", *tables.options, "--campaign", "red", cwd=tmp_path)
    assert all(each.isprintable() or each == "\n" for each in red.stdout)
    assert r"\x1b[31mred\x1b]0;title\x07 \x9b2J\r\n\u202egnp.exe (0)" in red.stdout
    assert HOSTILE[1] in red.stdout
    few = run_collector("report", *tables.options, "--campaign", "3", cwd=tmp_path)
    assert "1 ████" in " ".join(few.stdout.split())
    assert "0.0%  of sent" in few.stdout
    assert "\N{EN DASH}  of delivered" in few.stdout


def test_a_terminal_gets_colours_and_no_codes_of_others(tables, tmp_path):
    ours, its = pty.openpty()
    with subprocess.Popen(
        collector_command("report", *tables.options, "--campaign", "red"),
        cwd=tmp_path,
        env=clean_environment() | {"TERM": "xterm"},
        stdout=its,
    ) as process:
        os.close(its)
        parts = []
        while part := _read(ours):
            parts.append(part)
        os.close(ours)
    assert process.returncode == 0
    said = b"".join(parts).decode()
    assert "\x1b[32;" in said
    assert "\x1b[31mred" not in said
    assert "\x07" not in said


def _on_terminal(tables: DuckDB, folder: Path, width: int, *options: str) -> list[str]:
    """The lines that a terminal of a width gets."""
    ours, its = pty.openpty()
    termios.tcsetwinsize(its, (50, width))
    with subprocess.Popen(
        collector_command("report", *tables.options, *options),
        cwd=folder,
        env=clean_environment() | {"TERM": "xterm", "NO_COLOR": "1"},
        stdout=its,
    ) as process:
        os.close(its)
        parts = []
        while part := _read(ours):
            parts.append(part)
        os.close(ours)
    assert process.returncode == 0
    return b"".join(parts).decode().splitlines()


@pytest.mark.parametrize("width", [80, 140])
def test_three_hundred_campaigns_are_a_line_each_that_fits(tmp_path, width):
    warehouse = DuckDB(tmp_path / "warehouse.duckdb")
    load(
        warehouse,
        [
            event(
                kind,
                AT,
                user={"id": person},
                campaign={"id": number, "name": f"{'A long name ' * 4}{number}"},
            )
            for number in range(300)
            for kind in ("sent", "delivered", "opened")[: 1 + number % 3]
            for person in range(1 + number // 100)
        ],
    )

    lines = _on_terminal(warehouse, tmp_path, width)
    few = _on_terminal(warehouse, tmp_path, width, "--campaign", "299")

    assert max(map(len, lines + few)) <= width
    assert len(lines) < 40
    assert "and 280 more: see --top, --csv and --campaign" in lines
    # A name can be another's, as far as it is shown; the id is not.
    assert all(f"({number})" in "".join(lines) for number in range(200, 220))
    assert lines[-1].startswith("Total of 300 ")
    # Each recipient once, though campaigns share them.
    assert lines[-1].split()[3] == "3"
    assert "2026-11-23" in few[-1]


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65_536)
    except OSError:  # how Linux tells that the other side is closed
        return b""


def test_no_cell_is_a_formula(tables, tmp_path):
    done = run_collector("report", *tables.options, "--csv", "f.csv", cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    assert "Campaigns" in done.stdout
    text = (tmp_path / "f.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(StringIO(text)))
    assert len(rows) == 2 * len(HOSTILE)
    names = {int(row["campaign_id"]): row["campaign"] for row in rows}
    assert names[2] == f"'{HOSTILE[2]}"
    assert names[1] == HOSTILE[1]
    for number in range(4, 8):
        assert names[number] == f"'{HOSTILE[number]}"
    for row in rows:
        assert all(
            cell[:1] not in tuple("=+-@\t\r\N{FULLWIDTH EQUALS SIGN}") for cell in row.values()
        )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "--duckdb FILE or --postgres URL"),
        (["--duckdb", "a.duckdb", "--postgres", "postgresql://h/d"], "--duckdb FILE or"),
        (["--duckdb", "none.duckdb"], "there is no file none.duckdb"),
        (["--duckdb", "text.duckdb"], "cannot read text.duckdb"),
        (["--duckdb", "warehouse.duckdb", "--schema", "else"], "in the schema else of warehouse"),
        (["--duckdb", "warehouse.duckdb", "--csv", "no/f.csv"], "cannot write no/f.csv"),
        (["--duckdb", "warehouse.duckdb", "--since", "soon"], "is not a date or time"),
        (["--duckdb", "warehouse.duckdb", "--timezone", "../Mars"], "is not a known time zone"),
    ],
)
def test_what_cannot_be_is_told_in_a_line(tables, tmp_path, arguments, said):
    (tmp_path / "text.duckdb").write_text("no tables", encoding="utf-8")

    done = run_collector("report", *arguments, cwd=tmp_path)

    assert done.returncode in {1, 2}
    assert done.stdout == ""
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("package", ["duckdb", "rich", "jinja2"])
def test_what_is_not_installed_is_named(tables, tmp_path, package):
    code = (
        f"import sys; sys.modules['{package}'] = None\n"
        "from tap_vero_segment.collector.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "report", *tables.options, "--html", "f.html"],
        cwd=tmp_path,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert f"needs {package}: pip install 'tap-vero-segment[report]'" in line


def test_a_password_comes_by_the_environment_and_is_never_told(postgres, database, tmp_path):
    name = database.rpartition("/")[2]
    warehouse = PostgreSQL(database)
    load(warehouse, [sent("A", 1)])
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE ROLE analysts")
        connection.execute("GRANT USAGE ON SCHEMA vero TO analysts")
        connection.execute("GRANT SELECT ON ALL TABLES IN SCHEMA vero TO analysts")
    postgres.make_user("analyst", "hunter2pass", "analysts")
    url = postgres.url(name, "analyst")
    wrong = url.replace("analyst@", "analyst:wrongpass1@")
    broken = "postgresql://analyst:wrong%pass1@127.0.0.1/x"

    def run(*options: str, **env: str) -> subprocess.CompletedProcess[str]:
        return run_collector("report", *options, cwd=tmp_path, env=env)

    by_variable = run(
        VERO_COLLECTOR_REPORT_POSTGRES=url.replace("analyst@", "analyst:hunter2pass@")
    )
    by_libpq = run("--postgres", url, PGPASSWORD="hunter2pass")
    told_a_file = run("--duckdb", "none.duckdb", VERO_COLLECTOR_REPORT_POSTGRES=wrong)
    refused = [
        run("--postgres", wrong),
        run(VERO_COLLECTOR_REPORT_POSTGRES=wrong),
        run("--postgres", broken),
        run("--postgres", "host=127.0.0.1 password=wrongpass1 nonsense"),
    ]

    assert by_variable.returncode == by_libpq.returncode == 0, by_variable.stderr + by_libpq.stderr
    assert "A (1)" in by_variable.stdout
    assert by_variable.stdout == by_libpq.stdout
    assert by_variable.stderr == by_libpq.stderr == ""
    assert "there is no file none.duckdb" in told_a_file.stderr
    for done in refused:
        assert done.returncode == 1
        assert "wrong" not in done.stdout + done.stderr
        assert "postgres: " in done.stderr
    assert "--postgres holds a password" in refused[0].stderr
    assert "holds a password" not in refused[1].stderr


def test_the_database_is_read_in_a_transaction_that_cannot_write(database, tmp_path):
    warehouse = PostgreSQL(database)
    load(warehouse, [sent("A", 1)], without=frozenset({"campaign_name"}))
    warehouse.run("ALTER TABLE vero.email_sent RENAME TO kept")
    warehouse.run(
        "CREATE VIEW vero.email_sent AS SELECT *, "
        "'read-only: ' || current_setting('transaction_read_only') AS campaign_name FROM vero.kept"
    )

    done = run_collector("report", *warehouse.options, cwd=tmp_path)

    assert "read-only: on (1)" in done.stdout
