"""``vero-collector init``: fresh secrets for a new collector."""

from __future__ import annotations

import os
import secrets
from importlib.metadata import version
from importlib.resources import files
from typing import TYPE_CHECKING, Final
from urllib.parse import quote
from uuid import uuid4

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
    return _write_new(path, "\n".join(_env_lines(url)) + "\n", 0o600)


def _env_lines(url: str | None) -> list[str]:
    return [
        "# Secrets of vero-collector. Keep this file to yourself, and out of version control.",
        *(f"{variable(name)}={secrets.token_urlsafe(SECRET_BYTES)}" for name in Secrets._fields),
        "# Where Vero reaches the collector.",
        f"{variable('url')}={url}" if url else f"# {variable('url')}=https://collector.example",
    ]


def write_meltano(path: Path) -> bool:
    """Write a small Meltano project for the release that is installed.

    Returns:
        Whether it was written; a file that is there already is never touched.

    Raises:
        UserError: The file cannot be written.
    """
    text = files("tap_vero_segment.collector").joinpath("meltano.yml").read_text("utf-8")
    # Meltano would add an id with the next command that changes the file.
    text = text.replace("PROJECT_ID", str(uuid4()))
    return _write_new(path, text.replace("VERSION", version("tap-vero-segment")), 0o666)


def _write_new(path: Path, text: str, mode: int) -> bool:
    """Write a file, unless there is one; return whether it was written.

    Raises:
        UserError: It cannot be written.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError:
        return False
    except OSError as error:
        raise _cannot_write(path, error) from error
    try:
        with open(descriptor, "w", encoding="utf-8") as file:  # noqa: PTH123  # a descriptor, no path
            file.write(text)
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


def next_steps(*, meltano: bool) -> list[str]:
    """Return what to do after ``init``, a step a line.

    Args:
        meltano: Whether the folder is a Meltano project.
    """
    load = (
        "uvx meltano run vero-to-duckdb, then vero-collector report --duckdb warehouse.duckdb"
        if meltano
        else "vero-collector init --meltano writes a Meltano project for it"
    )
    return [
        "Next:",
        "  1. Start the collector: vero-collector serve, behind a proxy with TLS",
        "  2. Paste the URL into Vero: Settings > Project > Reporting Webhooks",
        f"  3. Load what arrives: {load}",
    ]
