"""The setting ``batch_config``: its meaning, and what of it cannot be used."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from singer_sdk import typing as th

from tap_vero_segment.errors import SettingError

if TYPE_CHECKING:
    from collections.abc import Mapping


SETTING: Final = "batch_config"
"""The setting, for errors."""

DEFAULT_SIZE: Final = 10_000
"""Events that are written between two states, which bounds the rows of a file."""

COMPRESSIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "jsonl": ("gzip", "none"),
    "parquet": ("snappy", "gzip", "zstd", "none"),
}
"""The formats of batch files, and what each can be compressed with."""


class BatchSettings(NamedTuple):
    """How batch files are written, and where to.

    Attributes:
        encoding: The files' format and compression, as BATCH messages repeat them.
        root: A folder, or the URL of a folder, of a bucket or of a prefix in it.
        prefix: What the files' names begin with.
        params: Credentials, region, endpoint and the like, as obstore names them.
        size: Events that are written between two states; no file has more rows.
    """

    encoding: dict[str, str | None]
    root: str
    prefix: str
    params: Mapping[str, Any]
    size: int

    @property
    def format(self) -> str:
        """The files' format: ``jsonl`` or ``parquet``."""
        return str(self.encoding["format"])

    @property
    def compression(self) -> str | None:
        """The files' compression; None: what the format has by itself."""
        return self.encoding["compression"]

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> BatchSettings | None:
        """Read the tap's configuration; None: RECORD messages are wanted.

        Raises:
            SettingError: It cannot be used.
        """
        raw = config.get(SETTING)
        if not raw:
            return None
        encoding, storage = _object(raw, "encoding"), _object(raw, "storage")
        form, compression = encoding.get("format"), encoding.get("compression")
        if not isinstance(form, str) or form not in COMPRESSIONS:
            raise _error("encoding.format", "it is neither jsonl nor parquet")
        if compression is not None and compression not in COMPRESSIONS[form]:
            names = ", ".join(COMPRESSIONS[form])
            raise _error("encoding.compression", f"for {form} it is one of {names}, or unset")
        if form == "parquet" and find_spec("pyarrow") is None:
            problem = "parquet needs pyarrow: pip install 'tap-vero-segment[parquet]'"
            raise _error("encoding.format", problem)
        root = storage.get("root")
        if not isinstance(root, str) or not root:
            raise _error("storage.root", "it is a folder, or a URL such as s3://bucket/prefix")
        params = storage.get("params") or {}
        if not isinstance(params, dict):
            raise _error("storage.params", "it is not an object")
        size = raw.get("batch_size")
        if size is None:
            size = DEFAULT_SIZE
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise _error("batch_size", "it is a whole number of rows, 1 or more")
        return cls(
            {"format": form, "compression": compression},
            root,
            storage.get("prefix") or "",
            params,
            size,
        )


def _object(raw: Any, name: str) -> Mapping[str, Any]:
    value = raw.get(name) if isinstance(raw, dict) else None
    if not isinstance(value, dict):
        raise _error(name, "it is missing, or not an object")
    return value


def _error(name: str, problem: str) -> SettingError:
    return SettingError(f"{SETTING}.{name}", problem)


PROPERTY: Final[th.Property[Any]] = th.Property(
    SETTING,
    th.ObjectType(
        th.Property(
            "encoding",
            th.ObjectType(
                th.Property(
                    "format",
                    th.StringType,
                    allowed_values=[*COMPRESSIONS],
                    title="Format",
                    description="The format of the files.",
                ),
                th.Property(
                    "compression",
                    th.StringType,
                    allowed_values=[
                        *dict.fromkeys(each for of in COMPRESSIONS.values() for each in of)
                    ],
                    title="Compression",
                    description="; ".join(
                        f"for {form}: {', '.join(names)}" for form, names in COMPRESSIONS.items()
                    ),
                ),
            ),
            title="Encoding",
            description="The format and compression of the files.",
        ),
        th.Property(
            "storage",
            th.ObjectType(
                th.Property(
                    "root",
                    th.StringType,
                    title="Root",
                    description="A folder, or the URL of one: file://, s3://, gs:// or az://.",
                ),
                th.Property(
                    "prefix",
                    th.StringType,
                    title="Prefix",
                    description="What the files' names begin with.",
                ),
                th.Property(
                    "params",
                    th.ObjectType(additional_properties=True),
                    secret=True,
                    title="Parameters",
                    description=(
                        "Credentials, region, endpoint and the like, as obstore names them. Unset: "
                        "the provider's usual environment variables, profiles and instance roles."
                    ),
                ),
            ),
            title="Storage",
            description="Where the files are written.",
        ),
        th.Property(
            "batch_size",
            th.IntegerType,
            title="Batch size",
            description=f"The most rows of a file; {DEFAULT_SIZE:,} unless told otherwise.",
        ),
    ),
    title="Batch configuration",
    description=(
        "Files instead of records. An object of encoding (format, compression), storage (root, "
        "prefix, params) and batch_size."
    ),
)
"""The setting."""
