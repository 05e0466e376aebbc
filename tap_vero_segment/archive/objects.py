"""Object stores: opening one by its URL, and what its errors mean to the user."""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    GenericError,
    NotSupportedError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import GCSStore, LocalStore, from_url

from tap_vero_segment import times
from tap_vero_segment.archive.options import aws_credentials, by_name, credentials_of, split_options
from tap_vero_segment.errors import SettingError
from tap_vero_segment.files import make_folder, replace_file, sync_folder, write_new

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from obstore import Attributes, GetOptions
    from obstore.store import ObjectStore, RetryConfig

SCHEMES: Final = ("file", "s3", "gs", "az")

CHUNK: Final = 1024 * 1024
"""Bytes of an object that are asked for at a time.

A request for the whole of it would stay open for as long as its reader takes, a slow target
included, and neither servers nor obstore's retries have the patience.
"""

RETRY: Final[RetryConfig] = {"max_retries": 6}

_VERBATIM: Final = {"accept-encoding": "gzip"}
"""Keeps Google from unzipping what is marked as gzipped: cloud.google.com/storage/docs/transcoding.
It is not for listings, as obstore could not unzip them."""

_LENGTH_UNKNOWN: Final = re.compile("Content-Length|non-partial", re.IGNORECASE)
"""What obstore says of an answer that Google has unzipped."""

_PRECONDITION: Final = "Request precondition failure"
"""What obstore says of an object that was overwritten when it takes up a broken connection."""

_NOT_ALLOWED: Final = "builder error"
"""What obstore says of a URL that it does not ask, as one over plain HTTP."""

_UNCONDITIONAL: Final = re.compile(r"NotImplemented|status code: 501\b")
"""What servers answer that speak S3 and do not know `If-None-Match`."""

_ARCHIVED: Final = re.compile(r"<Code>(InvalidObjectState|BlobArchived)</Code>|\bBlobArchived\b")
"""What Amazon (403) and Azure (409) say of an object that lies in an archive."""

_DENIED: Final = re.compile(r"status code: 40[13]\b")
_NO_CREDENTIALS: Final = re.compile(r"169\.254\.\d+\.\d+|computeMetadata")
"""Where obstore looks last: the metadata of a machine in the cloud."""


class StoredObject(NamedTuple):
    """An object of an archive.

    Attributes:
        path: Its path below the URL.
        modified_at: When it was last modified, in microseconds since 1970.
        size: Its bytes, as stored.
        version: Its ETag, where the store has one.
    """

    path: str
    modified_at: int
    size: int
    version: str | None


class ObjectStoreError(SettingError):
    """The store, or an object of it, could not be read or written."""


class ReplacedError(Exception):
    """The object is no longer the one that was listed."""


class Objects:
    """An object store, or a folder, and a prefix in it.

    Args:
        url: ``file:///…``, ``s3://…``, ``gs://…`` or ``az://…``.
        options: Credentials, region, endpoint and the like, as obstore names them; for what is
            not given, the provider's usual environment variables and instance roles count.
        setting: The setting that the URL came from, for errors.
        create: Whether to make a folder that is not there: for writing.
        options_setting: The setting that gives options, for errors; None: for reading it is
            ``storage_options``, for writing there is none.

    Raises:
        SettingError: The URL or an option cannot be used.
    """

    def __init__(
        self,
        url: str,
        options: Mapping[str, Any],
        setting: str,
        *,
        create: bool = False,
        options_setting: str | None = None,
    ) -> None:
        self._setting = setting
        given_by = options_setting or (None if create else "storage_options")
        self._options_setting = given_by or setting
        variables = credentials_of(urlsplit(url).scheme)
        self._hint = (
            f"; see {' or '.join(filter(None, (given_by, variables)))}" if variables else ""
        )
        self.url = url.rstrip("/")
        self.store = self._open(url, options, create=create)
        self._reading: ObjectStore = self.store
        self._verbatim: ObjectStore | None = None
        if isinstance(self.store, GCSStore):
            headers = {**options.get("default_headers", {}), **_VERBATIM}
            self._verbatim = self._open(url, {**options, "default_headers": headers})

    def _open(self, url: str, options: Mapping[str, Any], *, create: bool = False) -> ObjectStore:
        parts = urlsplit(url)
        if parts.scheme == "file":
            if parts.netloc not in {"", "localhost"}:
                raise SettingError(self._setting, "a folder's URL has three slashes: file:///…")
            return self._open_folder(Path(unquote(parts.path)), create=create)
        if not parts.scheme and url:
            folder = Path(url).absolute().as_uri()
            raise SettingError(self._setting, f"{url} is a path, and a folder's URL is {folder}")
        if parts.scheme not in SCHEMES or not parts.netloc:
            raise SettingError(self._setting, "it names no bucket, such as s3://bucket")
        if "@" in parts.netloc:
            raise SettingError(self._setting, "the URL of a bucket has no user and no password")
        if parts.query or parts.fragment:
            raise SettingError(self._setting, "the URL of a bucket has nothing after a ? or #")
        config, client = split_options(parts.scheme, options, self._options_setting)
        opener: Any = from_url  # its overloads want to know the scheme beforehand
        provider: Any = aws_credentials(config) if parts.scheme == "s3" else None
        try:
            opened: ObjectStore = opener(
                url,
                config=config,
                client_options=client,
                retry_config=RETRY,
                credential_provider=provider,
            )
            return opened  # noqa: TRY300
        except (BaseError, ValueError, TypeError) as error:
            problem = by_name(_first_line(error), parts.scheme, options)
            if problem.startswith("Generic URL error"):
                raise SettingError(self._setting, f"{self.url}: {problem}") from error
            raise SettingError(self._options_setting, problem) from error

    def _open_folder(self, path: Path, *, create: bool) -> ObjectStore:
        if not create and not path.is_dir():
            raise SettingError(self._setting, f"there is no folder {path}")
        try:
            if create:
                make_folder(path)
            return LocalStore(path)
        except (BaseError, OSError, ValueError) as error:  # of a path with a NUL
            raise SettingError(self._setting, f"{path}: {_first_line(error)}") from error

    def read(self, stored: StoredObject) -> Iterator[bytes]:
        """Yield an object's bytes, as stored, :data:`CHUNK` by chunk.

        A connection that breaks off is taken up again by obstore, where it broke off.

        Raises:
            ObjectStoreError: It cannot be read, or is gone.
            ReplacedError: It was overwritten after it had been listed.
        """
        try:
            for start in range(0, stored.size, CHUNK):
                yield self._get(stored, start, min(start + CHUNK, stored.size))
        except (BaseError, OSError) as error:
            if isinstance(error, PreconditionError) or _PRECONDITION in str(error):
                raise ReplacedError from error
            raise self.error(error, stored.path) from error

    def _get(self, stored: StoredObject, start: int, end: int) -> bytes:
        options: GetOptions = {"range": (start, end)}
        if stored.version is not None:
            options["if_match"] = stored.version
        store = self._reading
        try:
            return bytes(obstore.get(store, stored.path, options=options).bytes())
        except GenericError as error:
            if self._verbatim in (None, store) or not _LENGTH_UNKNOWN.search(str(error)):
                raise
        self._reading = self._verbatim
        return self._get(stored, start, end)

    def find(self, path: str) -> StoredObject:
        """Return what the store knows of an object.

        Raises:
            ObjectStoreError: It is not there, or cannot be read.
        """
        try:
            meta = obstore.head(self.store, path)
        except (BaseError, OSError) as error:
            raise self.error(error, path) from error
        modified_at = (meta["last_modified"] - times.EPOCH) // timedelta(microseconds=1)
        return StoredObject(path, modified_at, meta["size"], meta["e_tag"])

    def create(self, path: str, content: bytes) -> bool:
        """Write an object whole and synced, as gzipped JSON; one that is there is left as it is.

        Returns:
            Whether it was written; False: there is one of this path.

        Raises:
            ObjectStoreError: It cannot be written.
        """
        try:
            if isinstance(self.store, LocalStore):
                write_new(Path(self.store.prefix or "", path), content)
            else:
                self._put_new(path, content)
        except (AlreadyExistsError, FileExistsError):
            return False
        except (BaseError, OSError) as error:
            raise self.error(error, path) from error
        return True

    def _put_new(self, path: str, content: bytes) -> None:
        attributes: Attributes = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
        try:
            obstore.put(self.store, path, content, attributes=attributes, mode="create")
        except BaseError as error:
            if not _knows_no_conditions(error):
                raise
            # A server that knows no conditions: what is there already is seen a moment before.
            with suppress(FileNotFoundError):
                obstore.head(self.store, path)
                raise AlreadyExistsError from error
            obstore.put(self.store, path, content, attributes=attributes, use_multipart=False)

    def replace(self, stored: StoredObject, content: bytes) -> None:
        """Write an object anew, whole and synced, as gzipped JSON, if it is still the same.

        Raises:
            ReplacedError: It is another one by now.
            ObjectStoreError: It cannot be written.
        """
        attributes: Attributes = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
        try:
            if isinstance(self.store, LocalStore):
                self._check_same(stored)
                replace_file(Path(self.store.prefix or "", stored.path), content)
                return
            if stored.version is not None:
                try:
                    obstore.put(
                        self.store,
                        stored.path,
                        content,
                        attributes=attributes,
                        mode={"e_tag": stored.version},
                    )
                    return  # noqa: TRY300
                except BaseError as error:
                    if not _knows_no_conditions(error):
                        raise
            # A server that knows no conditions: what is there is seen a moment before.
            self._check_same(stored)
            obstore.put(
                self.store, stored.path, content, attributes=attributes, use_multipart=False
            )
        except (BaseError, OSError) as error:
            if isinstance(error, PreconditionError) or _PRECONDITION in str(error):
                raise ReplacedError from error
            raise self.error(error, stored.path) from error

    def delete(self, stored: StoredObject) -> None:
        """Delete an object, if it is still the same.

        Raises:
            ReplacedError: It is another one by now.
            ObjectStoreError: It cannot be deleted.
        """
        self._check_same(stored)
        try:
            obstore.delete(self.store, stored.path)
            if isinstance(self.store, LocalStore):
                sync_folder(Path(self.store.prefix or "", stored.path).parent)
        except (BaseError, OSError) as error:
            raise self.error(error, stored.path) from error

    def _check_same(self, stored: StoredObject) -> None:
        present = self.find(stored.path)
        if (present.version, present.size) != (stored.version, stored.size):
            raise ReplacedError

    def upload(self, path: str, file: IO[bytes]) -> None:
        """Write an object from a file, in parts where it is large; it is there once it is whole.

        Raises:
            ObjectStoreError: It cannot be written.
        """
        try:
            obstore.put(self.store, path, file)
        except (BaseError, OSError) as error:
            raise self.error(error, path) from error

    def problem(self, path: str, text: str) -> ObjectStoreError:
        """Return an error about an object."""
        where = f"{self.url}/{path}".rstrip("/")
        return ObjectStoreError(self._setting, f"{where}: {text}")

    def error(self, error: Exception, path: str = "") -> ObjectStoreError:
        """Say what an error of obstore means, without what it may hold of requests."""
        where = f"{self.url}/{path}".rstrip("/")
        code = re.search(r"<Code>(\w+)</Code>", str(error))
        reason = f" ({code[1]})" if code else ""
        if _NO_CREDENTIALS.search(str(error)):
            return ObjectStoreError(
                self._setting, f"{where}: no credentials were found{self._hint}"
            )
        if _ARCHIVED.search(str(error)):
            return self.problem(path, self._how_to_restore(path))
        denied = isinstance(error, (PermissionDeniedError, UnauthenticatedError))
        if denied or _DENIED.search(str(error)):
            return ObjectStoreError(self._setting, f"{where}: access denied{reason}{self._hint}")
        if code and code[1] in {"NoSuchBucket", "ContainerNotFound"}:
            return ObjectStoreError(self._setting, f"{where}: there is no such bucket")
        if isinstance(error, FileNotFoundError):
            return ObjectStoreError(self._setting, f"{where}: it is not there{reason}")
        if _NOT_ALLOWED in str(error):
            reason = " (plain HTTP, which allow_http = false forbids?)"
        return ObjectStoreError(self._setting, f"{where}: {_first_line(error)}{reason}")

    def _how_to_restore(self, path: str) -> str:
        """Say what can be done about an object that must be restored before it can be read."""
        bucket, _, prefix = self.url.partition("://")[2].partition("/")
        key = f"{prefix}/{path}".strip("/")
        if self.url.startswith("s3://"):
            how = (
                f"run `aws s3api restore-object --bucket {bucket} --key '{key}' "
                "--restore-request Days=7`, wait until it is restored (hours)"
            )
        else:
            how = "set its access tier to Hot or Cool, wait until it is rehydrated (hours)"
        return (
            "the object is in an archive storage class (such as Glacier) and cannot be read "
            f"directly: {how}, and run again; or leave its day out by start_date or end_date"
        )


def _knows_no_conditions(error: BaseError) -> bool:
    """Return whether a server has refused to write because of the condition, not of its result."""
    return isinstance(error, NotSupportedError) or bool(_UNCONDITIONAL.search(str(error)))


def _first_line(error: Exception) -> str:
    """Return an error's own words, without what can be secret in URLs, or a server's page."""
    text = str(error).split("\n", 1)[0].split(": <", 1)[0]
    return re.sub(r"(?<=://)[^\s/]*@|\?\S+", "", text)
