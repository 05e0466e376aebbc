"""Files of BATCH messages: where they are, and what they are."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit

from tap_vero_segment.errors import UserError
from tap_vero_segment.targets.duckdb.settings import STORAGE_OPTIONS

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

FORMATS: Final = ("jsonl", "parquet")

_GZIP: Final = b"\x1f\x8b"


@contextmanager
def local_file(url: str, folder: Path, options: Mapping[str, Any]) -> Generator[Path]:
    """Yield a batch file on this machine's disk; one of an object store is copied there.

    Args:
        url: A path, or a URL of a file or of an object.
        folder: Where a copy is kept meanwhile.
        options: Options of the object store.

    Raises:
        UserError: The file is not there, or cannot be read.
    """
    parts = urlsplit(url)
    if parts.scheme in {"", "file"}:
        host = "" if parts.netloc == "localhost" else parts.netloc
        path = Path(unquote(host + parts.path) if parts.scheme else url)
        if not path.is_file():
            msg = f"a BATCH message names {path}, which is not a file"
            raise UserError(msg)
        yield path
        return
    copy = folder / "batch"
    try:
        _download(url, copy, options)
        yield copy
    finally:
        copy.unlink(missing_ok=True)


def _download(url: str, copy: Path, options: Mapping[str, Any]) -> None:
    # obstore takes a tenth of a second to import, which no other run should cost.
    import obstore  # noqa: PLC0415
    from obstore.exceptions import BaseError  # noqa: PLC0415

    from tap_vero_segment.archive.objects import CHUNK, Objects  # noqa: PLC0415

    folder, _, name = url.rpartition("/")
    objects = Objects(folder, options, "BATCH", options_setting=STORAGE_OPTIONS)
    try:
        with copy.open("wb") as file:
            for chunk in obstore.get(objects.store, unquote(name)).stream(CHUNK):
                file.write(chunk)
    except (BaseError, FileNotFoundError) as error:
        raise objects.error(error, name) from error


def compression_of(path: Path) -> str:
    """Return a file's compression, by its first bytes: messages and names can be wrong."""
    with path.open("rb") as file:
        return "gzip" if file.read(2) == _GZIP else "uncompressed"
