"""The collector's settings, from options and from the environment."""

from __future__ import annotations

import errno
import ipaddress
import logging
import os
import stat
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias
from urllib.parse import parse_qsl, urlsplit

from dotenv import dotenv_values
from dotenv.parser import parse_stream

from tap_vero_segment.errors import SettingError, UserError, check_pasted

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Mapping
    from pathlib import Path

logger = logging.getLogger("vero-collector")

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

ENVIRONMENT: Final = "VERO_COLLECTOR_"
"""What the names of the collector's environment variables begin with."""

DEFAULT_STORE: Final = "sqlite:///vero-events.db"
DEFAULT_HOST: Final = "127.0.0.1"
DEFAULT_PORT: Final = 8321
DEFAULT_MAX_PENDING: Final = 256
"""Requests: more than a second of a busy sender's, should the disk stall, and a small part of a
second's work, so that those that are taken do not wait long behind one another."""
DEFAULT_MAX_CONNECTIONS: Final = 1_000
DEFAULT_CLIENT_SECONDS: Final = 30.0

PREVIOUS: Final = "_previous"
"""What the name of a secret ends with that is still valid beside a newer one."""
SHORT_SECRET: Final = 16
"""Characters: a shorter secret can be guessed."""

_MAPPED: Final = ipaddress.IPv6Network("::ffff:0:0/96")


FORWARD_HEADERS: Final = f"{ENVIRONMENT}FORWARD_HEADERS"
"""The environment variable with the headers that `forward` adds, which can be secrets."""


class Settings(NamedTuple):
    """The settings of ``serve``, except the secrets.

    Attributes:
        store: The store's URL.
        host: The address to listen on.
        port: The port; 0 takes a free one, which the log names.
        legacy_batches: Whether batches of Segment's webhooks are taken that are signed in part.
        segment_deletes: Whether ``delete`` notices of Segment's webhooks erase the user.
        allow_from: Who may ask; empty: everybody.
        trusted_proxies: Whose ``X-Forwarded-For`` is believed.
        max_pending: Requests that wait for their commit; the next one gets 503.
        max_connections: Connections that are served; the next one gets 503.
        client_seconds: How long a request may take to arrive, and a response to be read.
        forward: URLs that get copies of what Vero posts.
        forward_from: Where a new one begins; see
            :class:`tap_vero_segment.collector.forwarding.Manner`.
        forward_skip_refused: Whether an event that one of them refuses is skipped.
        url: Where Vero reaches the collector; None: not known.
    """

    store: str = DEFAULT_STORE
    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    legacy_batches: bool = False
    segment_deletes: bool = False
    allow_from: tuple[Network, ...] = ()
    trusted_proxies: tuple[Network, ...] = ()
    max_pending: int = DEFAULT_MAX_PENDING
    max_connections: int = DEFAULT_MAX_CONNECTIONS
    client_seconds: float = DEFAULT_CLIENT_SECONDS
    forward: tuple[str, ...] = ()
    forward_from: int | None = 0
    forward_skip_refused: bool = False
    url: str | None = None


class Secrets(NamedTuple):
    """The secrets, each of which enables one endpoint; without its secret, that returns 404.

    Each can be two: the one in use, and the one before it, until everybody has the newer one.

    Attributes:
        webhook_token: In the path that Vero posts to.
        read_token: The bearer token of the read API.
        write_key: The write key of the Tracking API.
        segment_secret: The shared secret of Segment's Webhooks destinations.
    """

    webhook_token: tuple[str, ...] = ()
    read_token: tuple[str, ...] = ()
    write_key: tuple[str, ...] = ()
    segment_secret: tuple[str, ...] = ()

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Secrets:
        """Read the secrets, which come by no other way: never by an option.

        Raises:
            SettingError: One cannot be meant as it is.
            UserError: No secret is set.
        """
        secrets = cls(**{name: _valid(name, environment) for name in cls._fields})
        if not any(secrets):
            names = ", ".join(variable(name) for name in cls._fields)
            msg = (
                f"no secret is set, so nothing could come in: run `vero-collector init`, which "
                f"writes them to .env, or set {names}"
            )
            raise UserError(msg)
        return secrets

    def short(self) -> list[str]:
        """Return the environment variables of secrets that can be guessed."""
        return [
            variable(field + end)
            for field, values in self._asdict().items()
            for end, value in zip(("", PREVIOUS), values, strict=False)
            if len(value) < SHORT_SECRET
        ]

    def changed(self, before: Secrets) -> list[str]:
        """Return the environment variables, without the previous ones, that have changed."""
        return [
            variable(field)
            for field, new, old in zip(self._fields, self, before, strict=True)
            if new != old
        ]


def _valid(name: str, environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return a secret and its previous one; an older one alone opens nothing.

    Raises:
        SettingError: One of them cannot be meant as it is.
    """
    secret, previous = (environment.get(variable(name + end)) for end in ("", PREVIOUS))
    for end, value in (("", secret), (PREVIOUS, previous)):
        check_pasted(variable(name + end), value or "")
    return tuple(filter(None, (secret, previous))) if secret else ()


@contextmanager
def reading(path: Path) -> Generator[None]:
    """Say why a file of settings cannot be read.

    Raises:
        UserError: It cannot.
    """
    try:
        if path.is_dir():  # which python-dotenv passes over without a word
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        yield
    except OSError as error:
        msg = f"{path} cannot be read: {error.strerror}"
        raise UserError(msg) from error
    except UnicodeDecodeError as error:
        msg = f"{path} cannot be read as text in UTF-8"
        raise UserError(msg) from error


class Environment:
    """The process's environment and ``.env``, which can be read again.

    What the process was started with wins over what the file says.

    Args:
        path: The file.
        started_with: The environment before the file was read into it.
    """

    def __init__(self, path: Path, started_with: Mapping[str, str]) -> None:
        self._path = path
        self._started_with = dict(started_with)
        self._had_file = path.exists()

    def warn_if_others_can_read(self) -> None:
        """Log a warning if the file holds a secret, and others than its owner can read it."""
        with suppress(OSError):
            mode = stat.S_IMODE(self._path.stat().st_mode)
            if mode & 0o077 and secret_variables() & dotenv_values(self._path).keys():
                logger.warning(
                    "other users of this machine can read the secrets in %s (mode %03o): "
                    "run chmod 600 %s",
                    self._path,
                    mode,
                    self._path,
                )

    def read(self) -> dict[str, str]:
        """Read the file again.

        Raises:
            UserError: It is not there any more, or cannot be read to its end: a file that is
                being written, say.
        """
        if not self._had_file and not self._path.exists():
            return self._started_with
        with reading(self._path):
            with self._path.open(encoding="utf-8") as file:
                wrong = [binding for binding in parse_stream(file) if binding.error]
            values = dotenv_values(self._path)
        if wrong:
            msg = f"{self._path}: line {wrong[0].original.line} cannot be read"
            raise UserError(msg)
        self._had_file = True
        return {key: value or "" for key, value in values.items()} | self._started_with


def secret_variables() -> set[str]:
    """Return the environment variables of all secrets, the previous ones included."""
    secrets = {variable(field + end) for field in Secrets._fields for end in ("", PREVIOUS)}
    return {*secrets, FORWARD_HEADERS}


def misspelt(environment: Iterable[str], known: Iterable[str]) -> dict[str, str | None]:
    """Return the collector's variables that no setting reads, each with the nearest known one.

    Args:
        environment: The names of variables, of whatever program.
        known: Those that are read.
    """
    # Without what they all begin with, which would make any of them alike.
    ends = {name.removeprefix(ENVIRONMENT) for name in known}
    others = {
        name.removeprefix(ENVIRONMENT)
        for name in environment
        # Meltano adds some of its own, with two underscores.
        if name.startswith(ENVIRONMENT) and not name.startswith(f"{ENVIRONMENT}_")
    }
    nearest = {end: get_close_matches(end, sorted(ends), 1) for end in sorted(others - ends)}
    return {
        ENVIRONMENT + end: ENVIRONMENT + found[0] if found else None
        for end, found in nearest.items()
    }


def has_password(url: str) -> bool:
    """Return whether a store's URL holds a password."""
    try:
        parts = urlsplit(url)
    except ValueError:  # it is no URL, which whoever opens it will say
        return False
    return bool(parts.password or dict(parse_qsl(parts.query)).get("password"))


def networks(values: Iterable[str], setting: str) -> tuple[Network, ...]:
    """Read addresses and networks in CIDR notation.

    Raises:
        SettingError: One is neither.
    """
    return tuple(_networks(values, setting))


def _networks(values: Iterable[str], setting: str) -> Iterator[Network]:
    for value in values:
        try:
            network = ipaddress.ip_network(value)
        except ValueError as error:
            raise SettingError(
                setting, f"an address or a network such as 192.0.2.0/24: {error}"
            ) from error
        if isinstance(network, ipaddress.IPv6Network) and network.subnet_of(_MAPPED):
            address = network.network_address.ipv4_mapped
            network = ipaddress.ip_network(f"{address}/{network.prefixlen - 96}")
        yield network


def variable(name: str) -> str:
    """Return the environment variable of a setting: ``VERO_COLLECTOR_READ_TOKEN``."""
    return ENVIRONMENT + name.upper()


URL_FORM: Final = "a URL such as https://collector.example"


def check_url(url: str, setting: str) -> None:
    """Check the URL of a collector as Vero reaches it.

    Args:
        url: The URL.
        setting: The setting that it came from, for errors.

    Raises:
        SettingError: Vero could not post to a URL that begins with it.
    """
    check_pasted(setting, url)
    try:
        parts = urlsplit(url)
        _ = parts.port  # which is read only when it is asked for
    except ValueError as error:
        raise SettingError(setting, f"it is not a URL; give {URL_FORM}") from error
    if parts.scheme not in {"http", "https"}:
        raise SettingError(setting, f"it does not begin with https:// or http://; give {URL_FORM}")
    if not parts.hostname or " " in url:
        raise SettingError(setting, f"it does not name a host; give {URL_FORM}")
    if "@" in parts.netloc:
        raise SettingError(setting, "it contains a user name; the token in the path replaces that")
    if "?" in url or "#" in url:
        raise SettingError(setting, f"it contains a query or a fragment; give {URL_FORM}")


def url_warning(url: str) -> str | None:
    """Return why Vero cannot, or should not, post to a URL; None: nothing is known against it."""
    parts = urlsplit(url)
    if _is_this_machine(parts.hostname or ""):
        return (
            "Vero cannot reach this URL, as it names this machine only: set "
            f"{variable('url')} to the collector's public URL"
        )
    if parts.scheme == "http":
        return (
            "the URL begins with http://, so that the token and addresses travel unencrypted: put "
            f"a proxy with TLS in front, and set {variable('url')} to its https:// URL"
        )
    return None


def _is_this_machine(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
    return address.is_loopback or address.is_unspecified
