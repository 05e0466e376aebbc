"""What the collector is told, by options and by its environment."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, NamedTuple

from tap_vero_segment.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping

ENVIRONMENT: Final = "VERO_COLLECTOR_"
"""What the names of the collector's environment variables begin with."""

DEFAULT_STORE: Final = "sqlite:///vero-events.db"
DEFAULT_HOST: Final = "127.0.0.1"
DEFAULT_PORT: Final = 8321


class Secrets(NamedTuple):
    """The secrets, each of which opens one door; a door without a secret is shut (404).

    Attributes:
        webhook_token: In the path that Vero posts to.
        read_token: The bearer token of the read API.
        write_key: The write key of the Tracking API.
        segment_secret: The shared secret of Segment's Webhooks destinations.
    """

    webhook_token: str | None = None
    read_token: str | None = None
    write_key: str | None = None
    segment_secret: str | None = None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Secrets:
        """Read the secrets, which come by no other way: never by an option.

        Raises:
            UserError: None is set.
        """
        secrets = cls(**{name: environment.get(variable(name)) or None for name in cls._fields})
        if not any(secrets):
            names = ", ".join(variable(name) for name in cls._fields)
            msg = (
                f"no secret is set, so nothing could come in: run `vero-collector init`, which "
                f"writes them to .env, or set {names}"
            )
            raise UserError(msg)
        return secrets


def variable(name: str) -> str:
    """Return the environment variable of a setting: ``VERO_COLLECTOR_READ_TOKEN``."""
    return ENVIRONMENT + name.upper()
