"""Connecting, the schema's version, and the meaning of PostgreSQL's errors."""

from __future__ import annotations

import hashlib
import logging
import time
from contextlib import contextmanager
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any, Final, TypeVar

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import TransactionStatus
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random

from tap_vero_segment.errors import SettingError
from tap_vero_segment.stores.base import (
    StoreBrokenError,
    StoreBusyError,
    StoreError,
    StoreFullError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

SCHEMA: Final = "vero_collector"
"""Everything lies in a schema of its own.

What writes events is a function in the database (``functions.sql``), so that the lock under which
``loaded_at`` rises is taken and let go by the server alone: a collector that is frozen or cut off
in the middle of a request holds nobody up.
"""

READER_ROLE: Final = "vero_collector_reader"
"""May read events and counts, and nothing else."""

_FILES: Final = resources.files("tap_vero_segment.stores.postgres")


def _sql(name: str) -> str:
    return _FILES.joinpath(name).read_text("utf-8")


MIGRATIONS: Final = (_sql("schema.sql") + _sql("functions.sql"),)
"""Each takes the schema from the version of its place to the next; never changed once released.

The schema's version is their number.
"""

READERS: Final = _sql("readers.sql")
"""Makes :data:`READER_ROLE`, after each migration: for a user who may make roles."""

MAX_KEY: Final = 1_000
"""Bytes of an id that are kept as they are; an index takes no more than 2,704."""

T = TypeVar("T")

logger = logging.getLogger("vero-collector")

PATIENCE: Final = 4
"""Seconds to wait for a server that restarts; whoever delivers webhooks waits no longer than 5."""

SILENCE: Final = 60
"""Seconds without a byte after which a server that was asked something counts as gone."""

IDLE_MILLISECONDS: Final = "3000"
"""How long a transaction may wait for the next statement of a process that may be frozen."""

OLDEST_SERVER: Final = 130000
"""As libpq numbers releases: 13."""

# What the URL does not say. A server whose machine is gone, not just its process, is noticed too.
_DEFAULTS: Final = {
    "application_name": "vero-collector",
    "connect_timeout": "4",
    "keepalives_idle": "10",
    "keepalives_interval": "3",
    "keepalives_count": "3",
    "tcp_user_timeout": "10000",
}
_ALWAYS: Final = {"client_encoding": "UTF8"}

SAFE_PATH: Final = "SET LOCAL search_path TO pg_catalog, pg_temp"
"""Comes first in a transaction: of what others have made in the database, nothing runs by its name.

Another user's function or operator of a name that PostgreSQL has too, in a schema on the path, may
fit better than PostgreSQL's own, and would run with this user's rights. A single statement outside
of a transaction names the schema of all that it uses instead. It is never set for the session: a
pooler would hand that on to somebody else.
"""

# A process that is frozen between two statements must not hold its locks for long.
_NOT_IDLE: Final = "SELECT set_config('idle_in_transaction_session_timeout', %s, true)"

# A database or role may be set to answer before the disk has it; a store must not.
_SYNCED: Final = """
SELECT set_config('synchronous_commit', 'on', true)
WHERE current_setting('synchronous_commit') IN ('off', 'local')
"""

# Asked of the tables, as to_regclass() would answer from the cache of before a lock was waited for.
_HAS_VERSION: Final = """
SELECT FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
WHERE n.nspname OPERATOR(pg_catalog.=) %s AND c.relname OPERATOR(pg_catalog.=) 'schema_version'
"""

# A server whose client's machine is gone must notice it in a minute, not in two hours.
_MAY_IDLE: Final = """
SELECT pg_catalog.set_config('idle_in_transaction_session_timeout', '0', true),
    pg_catalog.set_config('tcp_keepalives_idle', '30', true),
    pg_catalog.set_config('tcp_keepalives_interval', '10', true),
    pg_catalog.set_config('tcp_keepalives_count', '3', true)
"""
_LOCK_OF: Final = "SELECT pg_catalog.pg_try_advisory_xact_lock(%s::integer, %s::integer)"
_HOLDS: Final = 0x5665726F
"""``Vero``, once more: locks of two numbers are others than those of one."""

_MIGRATION_LOCK: Final = 0x5665726F
"""``Vero``: held by the one collector that makes or migrates the schema."""


class Connection(psycopg.Connection[tuple[Any, ...]]):
    """A connection that gives up on a server that is there and says nothing.

    A machine whose disk hangs, or a process that is frozen, keeps its connections alive; libpq
    would wait for the answer for ever.

    Attributes:
        silence: Seconds without a byte, in either direction, after which it gives up.
    """

    silence: float = SILENCE

    def wait(self, gen: Generator[Any, Any, T], *arguments: Any, **options: Any) -> T:
        """Do what the base class does, but not for ever.

        Raises:
            OperationalError: The server said nothing for too long; the connection is closed.
        """
        return super().wait(self._while_it_answers(gen), *arguments, **options)

    def _while_it_answers(self, steps: Generator[Any, Any, T]) -> Generator[Any, Any, T]:
        heard = time.monotonic()
        try:
            wanted = next(steps)
            while True:
                ready = yield wanted
                now = time.monotonic()
                if ready:
                    heard = now
                elif now - heard > self.silence:
                    self.pgconn.finish()
                    msg = "the server does not answer"
                    raise psycopg.OperationalError(msg)
                wanted = steps.send(ready)
        except StopIteration as end:
            result: T = end.value
            return result


class Session:
    """A connection to the store, made again when the server has gone away.

    Args:
        url: ``postgresql://…``, as libpq reads it.
        setting: The name of the setting that the URL came from, for errors.
        writes: Whether it has to reach a server that accepts writes.

    Raises:
        SettingError: There is no such server or database, or it will not let this user in.
    """

    def __init__(self, url: str, setting: str, *, writes: bool) -> None:
        self._parameters = _parameters(url, setting, writes=writes)
        try:
            self._connection = self._connect()
        except psycopg.Error as error:
            raise SettingError(setting, f"cannot connect: {_describe(error)}") from error

    def commit(self, work: Callable[[Connection], T]) -> T:
        """Do something in a transaction that is on disk when this returns; see :meth:`run`."""

        def in_transaction(connection: Connection) -> T:
            with connection.transaction():
                connection.execute(SAFE_PATH)
                connection.execute(_NOT_IDLE, (IDLE_MILLISECONDS,))
                connection.execute(_SYNCED)
                return work(connection)

        return self.run(in_transaction)

    def run(
        self,
        work: Callable[[Connection], T],
        silence: float = SILENCE,
        patience: float = PATIENCE,
    ) -> T:
        """Do something with the connection, and again with a new one where it breaks on the way.

        Args:
            work: What to do. It must be something that can be done twice.
            silence: Seconds without a byte after which the server counts as gone.
            patience: Seconds to wait for a server that restarts.

        Raises:
            StoreError: The subclass says whether going on makes sense.
        """
        attempts = Retrying(
            retry=retry_if_exception(_is_worth_another_try),
            stop=stop_after_delay(patience),
            wait=wait_random(0.02, 0.2),
            reraise=True,
        )
        try:
            result: T = attempts(self._attempt, work, silence)
        except psycopg.Error as error:
            raise store_error(error) from error
        return result

    def _attempt(self, work: Callable[[Connection], T], silence: float) -> T:
        if self._connection.closed:
            self._connection = self._connect()
        self._connection.silence = silence
        try:
            return work(self._connection)
        except psycopg.Error as error:
            if _is_lost(error):
                self._connection.close()
            raise

    def _connect(self) -> Connection:
        # Prepared statements would not survive a pooler between here and the server.
        return Connection.connect(**self._parameters, autocommit=True, prepare_threshold=None)

    def close(self) -> None:
        """Let go of the connection."""
        self._connection.close()


class Hold:
    """A lock that one process can have at a time, until it lets go of it or ends.

    A transaction of its own keeps it, as a pooler can hand a session on to somebody else.

    Args:
        url: ``postgresql://…``.
        setting: The name of the setting that the URL came from, for errors.
        number: What is locked, of all that is locked so.

    Raises:
        SettingError: The database cannot be reached.
    """

    def __init__(self, url: str, setting: str, number: int) -> None:
        self._number = number
        self._session = Session(url, setting, writes=True)

    def take(self) -> bool:
        """Take the lock, or make sure that it has it still; return whether it has.

        Raises:
            StoreError: The database cannot be asked.
        """
        return self._session.run(self._take)

    def _take(self, connection: Connection) -> bool:
        if connection.info.transaction_status != TransactionStatus.IDLE:
            connection.execute("SELECT")  # fails where the connection, and so the lock, is lost
            return True
        connection.execute("BEGIN")
        connection.execute(_MAY_IDLE)
        row = connection.execute(_LOCK_OF, (_HOLDS, self._number)).fetchone()
        if row == (True,):
            return True
        connection.execute("ROLLBACK")
        return False

    def close(self) -> None:
        """Let go of the lock."""
        self._session.close()


def key_of(event_id: str) -> str:
    """Return what an event's id is stored as."""
    encoded = event_id.encode()
    return event_id if len(encoded) <= MAX_KEY else f"sha256:{hashlib.sha256(encoded).hexdigest()}"


def location_of(url: str, setting: str) -> str:
    """Return the database and the server that a URL names: no user and no password.

    Raises:
        SettingError: libpq cannot read it.
    """
    given = _parameters(url, setting, writes=False)
    database = f"the PostgreSQL database {given.get('dbname', 'of the user')}"
    host, port = given.get("host") or given.get("hostaddr"), given.get("port")
    server = f"{host}:{port}" if host and port else host
    return f"{database} on {server}" if server else database


def open_to_write(url: str, setting: str) -> Session:
    """Connect for writing; make the schema where there is none, and bring an older one up to date.

    Raises:
        SettingError: The database cannot be reached or written, or is none that could be a store.
    """
    session = Session(url, setting, writes=True)
    with _or_closed(session, setting, "the schema cannot be made"):
        _check_server(session, setting)
        try:
            session.run(lambda connection: _migrate(connection, setting))
        except StoreError as error:
            if not isinstance(error.__cause__, psycopg.errors.InsufficientPrivilege):
                raise
            msg = f"{error}{session.run(_remedy)}"
            raise StoreError(msg) from error
    return session


def open_to_read(url: str, setting: str) -> Session:
    """Connect for reading.

    Raises:
        SettingError: The database cannot be reached or read, or is no store.
    """
    session = Session(url, setting, writes=False)
    with _or_closed(session, setting, "the database cannot be read"):
        found = session.run(_version)
        _check_version(found, setting)
        _check_readable(found, setting)
    return session


@contextmanager
def _or_closed(session: Session, setting: str, problem: str) -> Generator[None]:
    """Close a session whose store cannot be used after all.

    Raises:
        SettingError: It cannot.
    """
    try:
        yield
    except StoreError as error:
        session.close()
        raise SettingError(setting, f"{problem}: {error}") from error
    except SettingError:
        session.close()
        raise


def _parameters(url: str, setting: str, *, writes: bool) -> dict[str, Any]:
    try:
        given = conninfo_to_dict(url)
    except psycopg.ProgrammingError as error:
        # libpq's own message would repeat the URL, password and all.
        problem = "no URL that PostgreSQL's libpq can read; it is postgresql://user@host/database"
        raise SettingError(setting, problem) from error
    if any("@" in str(given.get(name, "")) for name in ("host", "port", "dbname")):
        # libpq has taken the rest of the password for one of these, and its errors would name it.
        problem = "an @, / or : in the user's name or password is written as %40, %2F or %3A"
        raise SettingError(setting, problem)
    by_intent = {"target_session_attrs": "read-write"} if writes else {}
    return {**_DEFAULTS, **by_intent, **given, **_ALWAYS}


def _check_server(session: Session, setting: str) -> None:
    """Refuse what would lose events, and warn of what could.

    Raises:
        SettingError: The server is too old, or the database keeps text in another encoding.
    """
    version, encoding, fsync = session.run(
        lambda connection: (
            connection.info.server_version,
            connection.info.parameter_status("server_encoding"),
            connection.execute("SHOW fsync").fetchone(),
        )
    )
    if version < OLDEST_SERVER:
        raise SettingError(setting, f"PostgreSQL {OLDEST_SERVER // 10000} or newer is needed")
    if encoding != "UTF8":
        raise SettingError(setting, f"the database's encoding is {encoding}, and must be UTF8")
    if fsync != ("on",):
        _warn_of_lost_events()


@cache
def _warn_of_lost_events() -> None:
    """Say it once, however many writers a collector has."""
    logger.warning("the PostgreSQL server runs with fsync off: a crash of it can lose events")


def _version(connection: Connection) -> int:
    """Return the schema's version, 0 where there is none."""
    if connection.execute(_HAS_VERSION, (SCHEMA,)).fetchone() is None:
        return 0
    row = connection.execute(f"SELECT version FROM {SCHEMA}.schema_version").fetchone()  # noqa: S608
    return int(row[0]) if row else 0


def _check_version(found: int, setting: str) -> None:
    if found > len(MIGRATIONS):
        raise SettingError(
            setting,
            f"the database was written by a newer release (schema {found}, this one reads "
            f"{len(MIGRATIONS)}): upgrade tap-vero-segment",
        )


def _check_readable(found: int, setting: str) -> None:
    if not found:
        problem = f"the database holds no store (no schema {SCHEMA}): start a collector on it first"
        raise SettingError(setting, problem)
    if found < len(MIGRATIONS):
        problem = (
            f"the database was written by an older release (schema {found}, this one reads "
            f"{len(MIGRATIONS)}): start vero-collector once, which upgrades it"
        )
        raise SettingError(setting, problem)


def _migrate(connection: Connection, setting: str) -> None:
    """Bring the schema up to date, once, also when collectors start together."""
    found = _version(connection)
    _check_version(found, setting)
    if found == len(MIGRATIONS):
        return
    with connection.transaction():
        connection.execute(SAFE_PATH)
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (_MIGRATION_LOCK,))
        found = _version(connection)
        _check_version(found, setting)
        for migration in MIGRATIONS[found:]:
            connection.execute(migration.encode())
        connection.execute(f"UPDATE {SCHEMA}.schema_version SET version = %s", (len(MIGRATIONS),))  # noqa: S608
        _grant_to_readers(connection)
    if not found:
        logger.info("new store: the schema %s was made", SCHEMA)


def _remedy(connection: Connection) -> str:
    """Return what an administrator can do for a user who may not make the schema."""
    query = "SELECT pg_catalog.to_regnamespace(%s), current_user"
    row = connection.execute(query, (SCHEMA,)).fetchone()
    if row is None or row[0] is not None:  # it is there, and another user's
        return ""
    user = sql.Identifier(row[1]).as_string()
    return (
        f"; an administrator of the database can make it for this user: "
        f"CREATE SCHEMA {SCHEMA} AUTHORIZATION {user}"
    )


def _grant_to_readers(connection: Connection) -> None:
    """Make the role for readers, where this user may; it is a convenience, no part of the store."""
    try:
        with connection.transaction():
            connection.execute(READERS.encode())
    except psycopg.errors.InsufficientPrivilege:
        logger.info("this user may not make a role for readers: see docs/collector/postgresql.md")


_LOST: Final = ("08", "57P", "25P03")
"""SQLSTATEs of a connection that broke, and of a server that stops or is not up yet."""

_UNDONE: Final = ("40001", "40P01")
"""SQLSTATEs of a transaction that was undone in favour of another one."""

_TELLING: Final = ("08", "25", "28", "3D", "42501", "53", "55", "57", "58")
"""SQLSTATEs whose messages name no value that was sent."""

_PASSING: Final = ("25006", "40", "53", "55P03", "57014")
"""SQLSTATEs of what trying again helps against: a stand-by, a deadlock, a time-out, no memory."""

_DISK_FULL: Final = "53100"

_GONE: Final = ("3F000", "42P01", "42883")
"""SQLSTATEs of a schema, a table or a function that is not there any more."""


def _is_lost(error: BaseException) -> bool:
    if not isinstance(error, psycopg.Error):
        return False
    if error.sqlstate is None:
        return isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError))
    # A server that has become a stand-by is lost too: another one accepts writes now.
    return error.sqlstate.startswith(_LOST) or error.sqlstate == "25006"


def _is_worth_another_try(error: BaseException) -> bool:
    return _is_lost(error) or (isinstance(error, psycopg.Error) and error.sqlstate in _UNDONE)


def store_error(error: psycopg.Error) -> StoreError:
    """Say what an error of PostgreSQL means for the process that met it."""
    text = _describe(error)
    state = error.sqlstate or ""
    if state == _DISK_FULL:
        return StoreFullError(text)
    if state in _GONE:
        return StoreBrokenError(
            f"the schema {SCHEMA} is gone, or is not what it was ({text}): restore the database, "
            "or start again to go on with what is there now"
        )
    if _is_lost(error) or state.startswith(_PASSING):
        return StoreBusyError(text)
    return StoreError(text)


def _describe(error: psycopg.Error) -> str:
    """Return an error's text, without values of events or secrets."""
    name = type(error).__name__
    if error.sqlstate is None:
        # The client's own: about servers, ports and names.
        return f"{name}: {str(error).strip().splitlines()[0]}" if str(error).strip() else name
    if error.sqlstate.startswith(_TELLING):
        return f"{name}: {error.diag.message_primary}"
    return f"{name} ({error.sqlstate})"
