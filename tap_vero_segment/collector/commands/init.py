"""``vero-collector init``: fresh secrets for a new collector."""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from dotenv import dotenv_values, set_key

from tap_vero_segment.collector.settings import Secrets, variable
from tap_vero_segment.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

SECRET_BYTES: Final = 32


def write_env(path: Path, url: str | None = None) -> bool:
    """Write a ``.env`` with fresh secrets, readable by its owner only.

    Args:
        path: The file.
        url: Where Vero reaches the collector, which is written there too; None: not known.

    Returns:
        Whether it was written; a file that is there already is never touched.

    Raises:
        UserError: The file cannot be written.
    """
    lines = [
        "# Secrets of vero-collector. Keep this file to yourself, and out of version control.",
        *(f"{variable(name)}={secrets.token_urlsafe(SECRET_BYTES)}" for name in Secrets._fields),
        "# Where Vero reaches the collector.",
        f"{variable('url')}={url}" if url else f"# {variable('url')}=https://collector.example",
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


def set_url(path: Path, url: str) -> bool:
    """Write a collector's URL into a ``.env`` that is there; its secrets stay as they are.

    Returns:
        Whether that changed anything.

    Raises:
        UserError: The file cannot be written.
    """
    if dotenv_values(path).get(variable("url")) == url:
        return False
    try:
        # Without quotes, which `docker --env-file` would keep.
        set_key(path, variable("url"), url, quote_mode="never", follow_symlinks=True)
    except OSError as error:
        raise _cannot_write(path, error) from error
    return True


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
