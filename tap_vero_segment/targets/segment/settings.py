"""The target's settings: their JSON schema, and their meaning."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import urlsplit

from singer_sdk import typing as th

from tap_vero_segment.errors import SettingError, check_pasted

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_ENDPOINT: Final = "https://api.segment.io"

SCHEMA: Final[dict[str, Any]] = th.PropertiesList(
    th.Property(
        "write_key",
        th.StringType,
        required=True,
        secret=True,
        title="Write key",
        description="The write key of the Segment source that the events are for.",
    ),
    th.Property(
        "endpoint",
        th.StringType,
        default=DEFAULT_ENDPOINT,
        title="Endpoint",
        description=(
            "Where the events go: https://api.segment.io, for a workspace in the EU "
            "https://events.eu1.segmentapis.com, or any server that speaks Segment's HTTP "
            "Tracking API."
        ),
    ),
    th.Property(
        "dead_letter",
        th.StringType,
        title="Dead letter",
        description=(
            "A file that events are appended to which can never be delivered. Unset: the first "
            "one ends the run."
        ),
    ),
).to_dict()

_BATCH_PATH: Final = "/v1/batch"
_FORM: Final = f"it is an http(s) URL such as {DEFAULT_ENDPOINT}"


class Settings(NamedTuple):
    """The settings, read and checked.

    Attributes:
        write_key: The write key.
        url: The URL that batches are posted to.
        dead_letter: The file for events that can never be delivered.
    """

    write_key: str
    url: str
    dead_letter: Path | None

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> Settings:
        """Read the target's configuration.

        Raises:
            SettingError: A setting cannot be used; the first one that is met.
        """
        write_key = config["write_key"]
        if not write_key:
            raise SettingError("write_key", "it is empty")
        check_pasted("write_key", write_key)
        # A colon would end the user name of Basic authentication.
        if not (write_key.isascii() and write_key.isprintable()) or set(write_key) & set(" :"):
            raise SettingError(
                "write_key", "it holds a space, a line end, or what else no write key holds"
            )
        dead_letter = config.get("dead_letter")
        return cls(
            write_key=write_key,
            url=_batch_url(config.get("endpoint") or DEFAULT_ENDPOINT),
            dead_letter=Path(dead_letter) if dead_letter else None,
        )


def _batch_url(endpoint: str) -> str:
    check_pasted("endpoint", endpoint)
    try:
        parts = urlsplit(endpoint)
        _ = parts.port  # which is read only when it is asked for
    except ValueError as error:
        raise SettingError("endpoint", f"no URL at all; {_FORM}") from error
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise SettingError("endpoint", _FORM)
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise SettingError("endpoint", f"no user, query or fragment belongs in it; {_FORM}")
    path = parts.path.rstrip("/").removesuffix(_BATCH_PATH).removesuffix("/v1") + _BATCH_PATH
    return parts._replace(path=path).geturl()
