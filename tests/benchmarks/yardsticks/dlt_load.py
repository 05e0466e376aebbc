"""An archive into one table of a DuckDB file, by dlt, in an environment of its own.

The settings are those of dlt's documentation for JSON Lines in a file system.
"""

import sys

import dlt
from dlt.sources.filesystem import filesystem, read_jsonl

archive, database = sys.argv[1:]
files = filesystem(bucket_url=f"file://{archive}", file_glob="**/*.gz")
pipeline = dlt.pipeline(
    "benchmark", destination=dlt.destinations.duckdb(database), dataset_name="vero"
)
pipeline.run((files | read_jsonl()).with_name("tracks"))
