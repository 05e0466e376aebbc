"""``vero-collector init``: fresh secrets for a new collector."""

from __future__ import annotations

import ipaddress
import logging
import os
import secrets
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, urlsplit

from dotenv import dotenv_values

from tap_vero_segment.collector.settings import Secrets, variable
from tap_vero_segment.errors import SettingError, UserError, check_pasted

if TYPE_CHECKING:
    from pathlib import Path

logger = logging.getLogger("vero-collector")

SECRET_BYTES: Final = 32
URL_FORM: Final = "a URL such as https://collector.example"


def write_env(path: Path) -> bool:
    """Write a ``.env`` with fresh secrets, readable by its owner only.

    Returns:
        Whether it was written; a file that is there already is never touched.

    Raises:
        UserError: The file cannot be written.
    """
    lines = [
        "# Secrets of vero-collector. Keep this file to yourself, and out of version control.",
        *(f"{variable(name)}={secrets.token_urlsafe(SECRET_BYTES)}" for name in Secrets._fields),
    ]
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return False
    except OSError as error:
        raise _cannot_write(path, error) from error
    try:
        with open(descriptor, "w", encoding="utf-8") as file:  # noqa: PTH123  # a descriptor, no path
            file.write("\n".join(lines) + "\n")
    except OSError as error:
        path.unlink()  # half a file would be taken for a whole one
        raise _cannot_write(path, error) from error
    return True


def _cannot_write(path: Path, error: OSError) -> UserError:
    return UserError(f"cannot write {path}: {error.strerror}")


def check_url(url: str) -> None:
    """Check the URL of a collector as Vero reaches it, and warn of one without TLS.

    Raises:
        SettingError: Vero could not post to a URL that begins with it.
    """
    check_pasted("--url", url)
    try:
        parts = urlsplit(url)
        _ = parts.port  # which is read only when it is asked for
    except ValueError as error:
        raise SettingError("--url", f"it is not a URL; give {URL_FORM}") from error
    if parts.scheme not in {"http", "https"}:
        raise SettingError("--url", f"it does not begin with https:// or http://; give {URL_FORM}")
    if not parts.hostname or " " in url:
        raise SettingError("--url", f"it does not name a host; give {URL_FORM}")
    if "@" in parts.netloc:
        raise SettingError("--url", "it contains a user name; the token in the path replaces that")
    if "?" in url or "#" in url:
        raise SettingError("--url", f"it contains a query or a fragment; give {URL_FORM}")
    if parts.scheme == "http" and not _is_this_machine(parts.hostname):
        logger.warning("--url begins with http://: the token and addresses travel unencrypted")


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def webhook_path(path: Path) -> str:
    """Return the path that Vero posts to, from a ``.env``, as it stands in a URL.

    Raises:
        UserError: The file has no webhook token.
    """
    name = variable("webhook_token")
    token = dotenv_values(path).get(name)
    if not token:
        msg = f"{path} is there and stays as it is, but has no {name}: add one, or move it away"
        raise UserError(msg)
    return f"/vero/{quote(token)}"
