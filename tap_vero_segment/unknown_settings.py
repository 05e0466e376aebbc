"""Settings of a config file that nobody reads, as their names are misspelled, say."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final

from singer_sdk.helpers import capabilities

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_OF_THE_SDK: Final = frozenset(
    name
    for schema in (
        capabilities.ACTIVATE_VERSION_CONFIG,
        capabilities.ADD_RECORD_METADATA_CONFIG,
        capabilities.BATCH_CONFIG,
        capabilities.EMIT_ACTIVATE_VERSION_CONFIG,
        capabilities.TARGET_BATCH_SIZE_ROWS_CONFIG,
        capabilities.TARGET_LOAD_METHOD_CONFIG,
        capabilities.TARGET_SCHEMA_CONFIG,
        capabilities.TARGET_VALIDATE_RECORDS_CONFIG,
    )
    for name in schema["properties"]
)
"""What the SDK reads, or declares for others, whether or not a plugin has it among its own."""


def unknown_settings(
    config: Mapping[str, Any], schema: dict[str, Any], within: str = ""
) -> Iterator[str]:
    """Yield a line for each setting that there is not, with the name that was meant perhaps.

    A setting's value may be a secret, and is never told.

    Args:
        config: The settings.
        schema: The JSON schema of the settings that there are, those of the SDK among them.
        within: The setting that these are parts of, with a point.
    """
    known = schema["properties"]
    for name, value in config.items():
        if name not in known and name not in _OF_THE_SDK:
            near = get_close_matches(name, known, n=1)
            hint = f"; {within + near[0]!r} was meant perhaps" if near else ""
            yield f"there is no setting {within + name!r}, so it is ignored{hint}"
        parts = known.get(name, {})
        closed = parts.get("properties") and not isinstance(parts.get("additionalProperties"), dict)
        if isinstance(value, dict) and closed:  # stream maps have names of the user's own
            yield from unknown_settings(value, parts, f"{within}{name}.")
