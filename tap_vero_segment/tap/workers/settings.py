"""The setting ``dask_scheduler``, and what it asks of the others."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from tap_vero_segment.errors import SettingError
from tap_vero_segment.sources.open import is_archive

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tap_vero_segment.tap.batch.settings import BatchSettings

SETTING: Final = "dask_scheduler"
"""The setting, for errors."""

_SCHEMES: Final = frozenset({"tcp", "tls", "ws", "wss", "ucx"})


def scheduler_of(config: Mapping[str, Any], batch: BatchSettings | None) -> str | None:
    """Return the scheduler's address; None: this process does all by itself.

    Raises:
        SettingError: It is no address, or another setting does not go with it.
    """
    address = config.get(SETTING)
    if not address:
        return None
    form = "it is an address such as tcp://host:8786"
    try:
        parts = urlsplit(address)
        complete = parts.scheme in _SCHEMES and parts.hostname and parts.port
    except ValueError as error:
        raise SettingError(SETTING, form) from error
    if not complete:
        raise SettingError(SETTING, form)
    if not is_archive(config["source"]):
        raise SettingError(SETTING, "only the objects of an archive can be handed to workers")
    if batch is None:
        raise SettingError(SETTING, "workers write batch files: set batch_config")
    if find_spec("distributed") is None:
        problem = "it needs Dask: pip install 'tap-vero-segment[dask]'"
        raise SettingError(SETTING, problem)
    return str(address)
