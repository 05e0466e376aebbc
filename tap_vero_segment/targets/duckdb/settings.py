"""The settings of ``target-vero-duckdb``: their JSON schema, and their meaning."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from singer_sdk import typing as th
from singer_sdk.helpers.capabilities import TargetLoadMethods

from tap_vero_segment.errors import SettingError

if TYPE_CHECKING:
    from collections.abc import Mapping

FILEPATH: Final = "filepath"
"""The setting that names the file, for errors."""

STORAGE_OPTIONS: Final = "storage_options"

RENAMED: Final = {"path": FILEPATH, "add_metadata_columns": "add_record_metadata"}
"""Settings of ``target-duckdb`` 0.8.0 that have another name here, where both are one thing."""

SCHEMA: Final[dict[str, Any]] = th.PropertiesList(
    th.Property(
        FILEPATH,
        th.StringType,
        required=True,
        title="File",
        description="The DuckDB file. It is created if it does not exist.",
    ),
    th.Property(
        "default_target_schema",
        th.StringType,
        title="Default target schema",
        description=(
            "The schema for all tables. Unset: the part of a stream's name before its first "
            "hyphen, or main."
        ),
    ),
    th.Property(
        "load_method",
        th.StringType,
        allowed_values=[method.value for method in TargetLoadMethods],
        default=TargetLoadMethods.UPSERT.value,
        title="Load method",
        description=(
            "upsert: a record replaces the row that has its key. append-only: every record is a "
            "new row. overwrite: the records of this run replace all rows, at its end."
        ),
    ),
    th.Property(
        "add_record_metadata",
        th.BooleanType,
        default=False,
        title="Add record metadata",
        description="Add the columns _sdc_extracted_at, _sdc_table_version and the like.",
    ),
    th.Property(
        "process_activate_version_messages",
        th.BooleanType,
        default=True,
        title="Process ACTIVATE_VERSION messages",
        description="Mark or delete rows of an older version of a table when the tap says so.",
    ),
    th.Property(
        "hard_delete",
        th.BooleanType,
        default=False,
        title="Hard delete",
        description=(
            "Delete rows of an older version of a table, and rows with _sdc_deleted_at, instead "
            "of keeping them marked."
        ),
    ),
    th.Property(
        "batch_size_rows",
        th.IntegerType,
        title="Batch size",
        description="How many records are loaded at once, at most. Unset: 24 MB of them.",
    ),
    th.Property(
        "temp_dir",
        th.StringType,
        title="Temporary folder",
        description="Where records wait to be loaded. Unset: beside the DuckDB file.",
    ),
    th.Property(
        STORAGE_OPTIONS,
        th.ObjectType(additional_properties=th.CustomType({})),
        secret=True,
        title="Storage options",
        description=(
            "For batch files in an object store: credentials, region, endpoint and the like, as "
            "obstore names them."
        ),
    ),
).to_dict()


class Settings(NamedTuple):
    """The settings, read and checked.

    Attributes:
        path: The DuckDB file.
        schema: The schema for all tables; None: each stream's own.
        load_method: Whether records replace rows.
        versions: Whether ACTIVATE_VERSION messages count.
        hard_delete: Whether rows that are gone at the source are deleted instead of marked.
        metadata: Whether rows have the SDK's metadata columns.
        rows: How many records are loaded at once, at most; None: only their size counts.
        temp_dir: Where records wait to be loaded; None: beside the file.
        storage_options: Options of the object stores that batch files are in.
    """

    path: Path
    schema: str | None
    load_method: TargetLoadMethods
    versions: bool
    hard_delete: bool
    metadata: bool
    rows: int | None
    temp_dir: Path | None
    storage_options: Mapping[str, Any]

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> Settings:
        """Read the target's configuration.

        Raises:
            SettingError: A setting cannot be used; the first one that is met.
        """
        path = config[FILEPATH]
        if not path or path == ":memory:" or path.startswith(("md:", "motherduck:")):
            raise SettingError(FILEPATH, "it is not a file: give its path, as warehouse.duckdb")
        rows = config.get("batch_size_rows")
        if rows is not None and rows < 1:
            raise SettingError("batch_size_rows", "it must be 1 or more")
        temp_dir = config.get("temp_dir")
        return cls(
            path=Path(path).absolute(),
            schema=(config.get("default_target_schema") or "").strip() or None,
            load_method=TargetLoadMethods(config.get("load_method") or TargetLoadMethods.UPSERT),
            versions=config.get("process_activate_version_messages") is not False,
            hard_delete=bool(config.get("hard_delete")),
            metadata=bool(config.get("add_record_metadata")),
            rows=rows,
            temp_dir=Path(temp_dir).absolute() if temp_dir else None,
            storage_options=config.get(STORAGE_OPTIONS) or {},
        )
