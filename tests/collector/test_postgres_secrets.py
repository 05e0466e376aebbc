"""The password in a database's URL, and what was sent: neither is told, whatever goes wrong."""

from __future__ import annotations

import psycopg
import pytest

from tests.support.collector import SECRETS, Collector, run_collector
from tests.support.leaks import FRAGMENT, assert_tells_nothing
from tests.support.payloads import documented
from tests.support.postgres_problems import PROBLEMS, SECRET, problem_url

COMMANDS = {
    "serve": ("serve", "--port", "0"),
    "status": ("status",),
    "export": ("export", "--to", "file:///nowhere"),
}

REFUSE = """
CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS
    $$BEGIN RAISE EXCEPTION '% %', NEW.id, convert_from(NEW.call, 'UTF8'); END$$;
CREATE TRIGGER refuse BEFORE INSERT ON vero_collector.events
    FOR EACH ROW EXECUTE FUNCTION public.refuse();
"""
FORBID = "ALTER TABLE vero_collector.events ADD CONSTRAINT never CHECK (loaded_at < 0) NOT VALID"


def fails_in_one_line(done, said):
    assert done.returncode == 1
    (error,) = (line for line in done.stderr.splitlines() if " INFO " not in line)
    assert error.startswith("vero-collector: store: ")
    assert said in error
    assert SECRET not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        *(("serve", problem) for problem in PROBLEMS),
        *((command, problem) for command in ("status", "export")
          for problem in ("no server", "no such database", "an @ in the password")),
    ],
)  # fmt: skip
def test_an_error_names_the_setting_and_no_secret(tmp_path, postgres, command, problem):
    environment = SECRETS | {"VERO_COLLECTOR_STORE": problem_url(postgres, problem)}
    done = run_collector(*COMMANDS[command], cwd=tmp_path, env=environment)
    fails_in_one_line(done, PROBLEMS[problem][1])


@pytest.mark.parametrize(
    ("password", "said"),
    [
        (SECRET, "the schema cannot be made: InsufficientPrivilege: permission denied for"),
        (f"{SECRET}x", "password authentication failed"),
    ],
    ids=["no-rights", "wrong-password"],
)
def test_who_may_not_write_is_told_so(tmp_path, postgres, database, password, said):
    postgres.make_user(f"of {said[:9]}", SECRET, "pg_monitor")
    name = database.rpartition("/")[2]
    url = postgres.url(name, f"of%20{said[:9].replace(' ', '%20')}:{password}")
    done = run_collector(
        *COMMANDS["serve"], cwd=tmp_path, env=SECRETS | {"VERO_COLLECTOR_STORE": url}
    )
    fails_in_one_line(done, said)


def test_who_may_not_make_the_schema_is_told_what_an_administrator_does(
    tmp_path, postgres, database
):
    name = database.rpartition("/")[2]
    postgres.make_user("may not", SECRET, "pg_monitor")
    environment = SECRETS | {"VERO_COLLECTOR_STORE": postgres.url(name, f"may%20not:{SECRET}")}
    done = run_collector(*COMMANDS["serve"], cwd=tmp_path, env=environment)
    fails_in_one_line(done, remedy := 'CREATE SCHEMA vero_collector AUTHORIZATION "may not"')
    with postgres.connect(name) as administrator:
        administrator.execute(done.stderr[done.stderr.index(remedy) :].encode())

    with Collector(tmp_path, env=environment, store_url=environment["VERO_COLLECTOR_STORE"]) as it:
        assert it.get("/ready").status_code == 200


@pytest.mark.parametrize("fault", [REFUSE, FORBID], ids=["raised", "constraint"])
def test_an_error_of_the_database_repeats_nothing_of_an_event(tmp_path, database, fault):
    with Collector(tmp_path, store_url=database) as collector:
        with psycopg.connect(database) as connection:
            connection.execute(fault.encode())
        assert collector.post(documented() | {"a": FRAGMENT}).status_code == 503
        log = collector.log()
    assert "nothing of a group of 1 was stored" in log
    assert_tells_nothing(log)
