"""An object store in a process of its own that speaks S3: moto's."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any, NamedTuple, Self
from urllib.parse import parse_qs, unquote, urlsplit

import boto3
from botocore.config import Config

from tests.support.collector import clean_environment

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from tests.support.archive import ArchiveObject

ACCESS_KEY = "access-key-of-the-tests"
SECRET_KEY = "secret-key-of-the-tests"
REGION = "eu-west-1"

_RUNNING = re.compile(r"Running on (http://\S+)")
_COLOUR = re.compile(r"\x1b\[[\d;]*m")
_REQUEST = re.compile(r'"([A-Z]+) (\S+) HTTP/1\.1')


def without_aws(environment: dict[str, str]) -> dict[str, str]:
    """An environment that says nothing of Amazon's, or any, object store."""
    return {key: value for key, value in environment.items() if not key.startswith("AWS_")}


class Asked(NamedTuple):
    """A request as the server has logged it: of an object, or a listing by its prefix."""

    method: str
    path: str
    query: dict[str, str]


class S3:
    """moto's server on a free port; usable as a context manager."""

    def __init__(self, folder: Path) -> None:
        self._log = folder / "moto.log"
        self.endpoint = ""

    @property
    def options(self) -> dict[str, Any]:
        """What ``storage_options`` need to say to get here."""
        return {
            "access_key_id": ACCESS_KEY,
            "secret_access_key": SECRET_KEY,
            "region": REGION,
            "endpoint": self.endpoint,
        }

    @property
    def environment(self) -> dict[str, str]:
        """The same in the environment."""
        return {
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_REGION": REGION,
            "AWS_ENDPOINT_URL": self.endpoint,
        }

    def client(self) -> Any:
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            region_name=REGION,
            config=Config(retries={"max_attempts": 1}),
        )

    def make_bucket(self, bucket: str) -> None:
        self.client().create_bucket(
            Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION}
        )

    def put(self, bucket: str, objects: Iterable[ArchiveObject], prefix: str = "") -> None:
        """Write objects as Segment does; their times are those of the writing."""
        client = self.client()
        for made in objects:
            client.put_object(
                Bucket=bucket,
                Key=prefix + made.path,
                Body=made.content,
                ContentEncoding="gzip",
                ContentType="application/json",
            )

    def times(
        self, bucket: str, objects: Iterable[ArchiveObject], prefix: str = ""
    ) -> list[ArchiveObject]:
        """Return objects with the times that the server has given them."""
        pages = self.client().get_paginator("list_objects_v2").paginate(Bucket=bucket)
        written = {
            found["Key"]: found["LastModified"]
            for page in pages
            for found in page.get("Contents", [])
        }
        return [made._replace(modified_at=written[prefix + made.path]) for made in objects]

    def requests(self) -> list[Asked]:
        """Return the requests so far."""
        found = _REQUEST.findall(_COLOUR.sub("", self._log.read_text(encoding="utf-8")))
        asked = []
        for method, target in found:
            parts = urlsplit(target)
            query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
            asked.append(Asked(method, unquote(parts.path), query))
        return asked

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "moto.server", "-p", "0"],
                env=without_aws(clean_environment()),
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self._process.poll() is None:
            found = _RUNNING.search(self._log.read_text(encoding="utf-8"))
            if found:
                self.endpoint = found[1]
                return self
            time.sleep(0.02)
        msg = f"moto's server did not start:\n{self._log.read_text(encoding='utf-8')}"
        raise AssertionError(msg)

    def __exit__(self, *error: object) -> None:
        self._process.terminate()
        self._process.wait(timeout=30)
