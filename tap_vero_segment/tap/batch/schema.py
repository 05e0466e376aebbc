"""The JSON schema of the setting ``batch_config``.

The SDK has one of its own, which knows neither all compressions nor all keys.
"""

from __future__ import annotations

from typing import Any, Final

from singer_sdk import typing as th

from tap_vero_segment.tap.batch.settings import COMPRESSIONS, DEFAULT_SIZE, SETTING

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
