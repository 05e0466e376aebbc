"""``vero-collector init``: fresh secrets for a new collector."""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from dotenv import dotenv_values

from tap_vero_segment.collector.settings import Secrets, variable
from tap_vero_segment.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

SECRET_BYTES: Final = 32


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
        msg = f"cannot write {path}: {error.strerror}"
        raise UserError(msg) from error
    with open(descriptor, "w", encoding="utf-8") as file:  # noqa: PTH123  # a descriptor, no path
        file.write("\n".join(lines) + "\n")
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
