"""Bodies of dead letters for people to read: without write keys, and without our own secrets."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import msgspec

from tap_vero_segment.inputs.body import BOM, BodyError, check_depth, unquote, unzip

if TYPE_CHECKING:
    from collections.abc import Iterable


def _spelt(text: str) -> str:
    """Return a pattern for a text in whose letters JSON's or percent-encoding may stand."""
    return "".join(f"(?:{re.escape(each)}|{_escapes(each)})" for each in text)


def _escapes(character: str) -> str:
    """Return a pattern for a character as an escape; nested in JSON or a form, more than once."""
    codes = "|".join(f"{ord(each):02x}" for each in {character.lower(), character.upper()})
    return rf"(?:%(?:25){{0,3}}|\\{{1,8}}(?:u00|x))(?i:{codes})"


_REDACTED: Final = "…"

_BETWEEN: Final = rf"(?:[_-]|{_escapes('_')}|{_escapes('-')}){{0,3}}"

_WRITE_KEY: Final = re.compile(
    rf"""
    {_BETWEEN.join(map(_spelt, "writekey"))}
    {_BETWEEN}
    (?: [\\"'\s] | {_escapes('"')} | {_escapes(" ")} ){{0,40}}
    (?: [:=]>? | {_escapes(":")} | {_escapes("=")} )
    \s*
    """,
    re.IGNORECASE | re.VERBOSE,
)
"""The name of a live secret, however it is spelt, up to its value."""

_VALUE: Final = re.compile(
    r"""
    (?P<opening> [\[{] )
    | "(?:[^"\\]|\\.)*"?
    | [\\"']* [^\\"'\s,;&{}\[\]]+ [\\"']*
    """,
    re.VERBOSE | re.DOTALL,
)

_TOKEN: Final = re.compile(
    r"""(?P<opening>[\[{])|(?P<closing>[\]}])|"(?:[^"\\]|\\.)*"?|[^"\[\]{}]+""", re.DOTALL
)

_QUOTED: Final = re.compile(rb"%(?:22|7b)", re.IGNORECASE)
"""What percent-encoded JSON has in it."""

_MAX_QUOTED: Final = 3  # how often a body is percent-encoded


def readable(body: bytes, secrets: Iterable[str]) -> str:
    """Return a body as text without a write key that is in it, nor any of the given secrets.

    It is unzipped and percent-decoded where it can be; JSON is indented.
    """
    secrets = tuple(secrets)
    with suppress(BodyError):
        body = unzip(body)
    body = body.removeprefix(BOM)
    try:
        check_depth(msgspec.json.decode(body))
        body = msgspec.json.format(body, indent=2)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        # It may be a letter because it is no such JSON.
        for _ in range(_MAX_QUOTED):
            if not _QUOTED.search(body):
                break
            body = unquote(body)
    text = body.decode(errors="backslashreplace")
    plain = text.replace("\0", "")  # of which UTF-16 has one in each letter
    hidden = without_secrets(plain, secrets)
    return without_secrets(text, secrets) if hidden == plain else hidden


def without_secrets(text: str, secrets: Iterable[str]) -> str:
    """Return a text without the values of write keys, and without some secrets."""
    for secret in secrets:
        text = text.replace(secret, _REDACTED)
        if "%" in text or "\\" in text:
            text = re.sub(_spelt(secret), _REDACTED, text)
    parts = []
    start = 0
    while name := _WRITE_KEY.search(text, start):
        parts += [text[start : name.end()], _REDACTED]
        start = _value_end(text, name.end())
    return "".join([*parts, text[start:]])


def _value_end(text: str, start: int) -> int:
    """Return where a value ends: text, a number, or an array or object to its last bracket."""
    value = _VALUE.match(text, start)
    if value is None:
        return start
    if value["opening"] is None:
        return value.end()
    depth = 0
    for token in _TOKEN.finditer(text, start):
        depth += (token["opening"] is not None) - (token["closing"] is not None)
        if depth == 0:
            return token.end()
    return len(text)
