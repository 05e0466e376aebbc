"""The DuckDB file: opening it, its transactions, and what its errors mean to the user."""

from __future__ import annotations

import os
import re
import shutil
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

from tap_vero_segment.closing import Closing
from tap_vero_segment.errors import SettingError, UserError, importing
from tap_vero_segment.targets.duckdb.columns import MISFIT, literal
from tap_vero_segment.targets.duckdb.settings import FILEPATH

with importing(
    UserError("target-vero-duckdb needs DuckDB: pip install 'tap-vero-segment[duckdb]'")
):
    import duckdb

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

CATALOG: Final = "warehouse"
"""The file's name in SQL. Its own would be ambiguous where a schema has it as well."""

MEMORY: Final = 112
"""Megabytes that DuckDB may take; what is beyond them it keeps in a temporary file.

Of each column it needs a quarter of one, however few the rows."""

CHECKPOINT: Final = "64MB"
"""How long DuckDB's log may become; each checkpoint writes the ends of all tables anew."""

_CONFIG: Final[dict[str, str | bool | int | float | list[str]]] = {
    # Loading asks nothing of the network, and a file that is not DuckDB's must not make it ask.
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "checkpoint_threshold": CHECKPOINT,
    "memory_limit": f"{MEMORY}MB",
    "threads": str(min(os.cpu_count() or 1, 2)),
}

_OWN_WORDS: Final = re.compile(rf"Error: (.* {MISFIT} .*)")


class Warehouse(Closing):
    """A DuckDB file that is being loaded into, and a private folder for what waits.

    Args:
        path: The file.
        temp_dir: Where the folder is; None: beside the file.

    Attributes:
        folder: The folder.
        emptied: The tables whose earlier rows were deleted, each by its schema and name.

    Raises:
        SettingError: The file cannot be opened.
    """

    def __init__(self, path: Path, temp_dir: Path | None) -> None:
        self.emptied: set[tuple[str, str]] = set()
        self._path = path
        self._begun = False
        self._memory = MEMORY
        self._connection = duckdb.connect(config=_CONFIG)
        try:
            with self.reporting():
                self.run(f"ATTACH {literal(str(path))} AS {CATALOG} (TYPE duckdb)")
                with suppress(duckdb.Error):  # a build without time zones: all of it is UTC
                    self.run("SET TimeZone = 'UTC'")
            # The file is ours alone now, and so is the folder: an older one is of a run that was
            # killed.
            self.folder = (temp_dir or path.parent) / f".{path.name}.loading"
            with self.writing():
                shutil.rmtree(self.folder, ignore_errors=True)
                self.folder.mkdir(mode=0o700, parents=True)
            self.run(f"SET temp_directory = {literal(str(self.folder))}")
        except BaseException:
            self._connection.close()
            raise

    def run(self, statement: str, values: list[Any] | None = None) -> list[tuple[Any, ...]]:
        """Run a statement and return its rows."""
        return self._connection.execute(statement, values).fetchall()

    def make_room(self, columns: int) -> None:
        """Let DuckDB take more memory where a table has more than 280 columns."""
        needed = 40 + columns // 4
        if needed > self._memory:
            self._memory = needed
            self.run(f"SET memory_limit = '{needed}MB'")

    def begin(self) -> None:
        """Begin a transaction, unless there is one."""
        if not self._begun:
            self._connection.begin()
            self._begun = True

    def commit(self) -> None:
        """Commit the transaction.

        Raises:
            UserError: It cannot be committed, and nothing of it is in the file.
        """
        with self.reporting():
            self._connection.commit()
        self._begun = False

    def close(self) -> None:
        """Close the file; what is not committed is not in it."""
        with suppress(duckdb.Error):
            self._connection.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    @contextmanager
    def writing(self) -> Generator[None]:
        """Report an error of the system.

        Raises:
            SettingError: There was one.
        """
        try:
            yield
        except OSError as error:
            where = error.filename or self.folder
            raise SettingError(FILEPATH, f"cannot write {where}: {error.strerror}") from error

    @contextmanager
    def reporting(self, what: str = "") -> Generator[None]:
        """Report an error of DuckDB in one line, without a row's values.

        Args:
            what: What was being done, such as the stream that was being loaded.

        Raises:
            UserError: There was one.
        """
        try:
            yield
        except duckdb.Error as error:
            raise self._explained(error, what) from error

    def _explained(self, error: duckdb.Error, what: str) -> UserError:
        text = " ".join(str(error).split())
        own = _OWN_WORDS.search(text)
        if own:
            return UserError(own[1])
        of_file = self._explained_by_file(text)
        if of_file:
            return SettingError(FILEPATH, of_file)
        if isinstance(error, duckdb.ConstraintException):
            problem = (
                "the records break a constraint of the table, such as another key or NOT NULL: "
                "drop the constraint, or load into another schema"
            )
        elif "uplicate key" in text:
            problem = "a record has the same property twice"
        elif "Malformed JSON" in text:
            problem = "a record is not valid JSON in UTF-8"
        elif isinstance(error, duckdb.OutOfMemoryException):
            problem = (
                f"DuckDB needs more than {self._memory} MB, or temporary space, for these records"
            )
        else:
            # The text may hold a value.
            problem = f"DuckDB reports {type(error).__name__}"
        return UserError(f"{what}: {problem}" if what else problem)

    def _explained_by_file(self, text: str) -> str | None:
        path = self._path
        if "Could not set lock" in text:
            holder = re.search(r"PID \d+", text)
            who = f" ({holder[0]})" if holder else ""
            return f"another process{who} has {path} open: end it, then run again"
        if "not a valid DuckDB database" in text:
            return f"{path} is not a DuckDB file: move it away, or give another path"
        if "newer version of DuckDB" in text:
            return f"{path} was written by a newer DuckDB than {duckdb.__version__}: upgrade duckdb"
        for reason in (
            "No space left on device",
            "Read-only file system",
            "Permission denied",
            "Is a directory",
            "No such file or directory",
            "Disk quota exceeded",
            "Input/output error",
            "File too large",
        ):
            if reason in text:
                return f"cannot write {path}: {reason}"
        if "Corrupt database file" in text or "checksum" in text:
            return f"{path} is damaged: restore it from a backup, or give another path"
        return None
