"""Fixtures of the tests that read and write archives."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.support.s3 import S3

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_CLOUD = ("AWS_", "GOOGLE_", "AZURE_")


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    """An object store that speaks S3, in a process of its own."""
    with S3(tmp_path_factory.mktemp("moto")) as running:
        yield running


@pytest.fixture(autouse=True)
def no_cloud(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No credentials but those of the test."""
    for name in list(os.environ):
        if name.startswith(_CLOUD):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "no-credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "no-config"))
