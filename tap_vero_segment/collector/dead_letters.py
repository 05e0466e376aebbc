"""``vero-collector dead-letters list``, ``show`` and ``delete``: what was quarantined, and why."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import msgspec

from tap_vero_segment import times
from tap_vero_segment.collector.letters import check_there, every_letter, letter_of, not_there
from tap_vero_segment.errors import UserError
from tap_vero_segment.inputs.body import BOM, BodyError, check_depth, unquote, unzip
from tap_vero_segment.stores.open import open_reader, open_writer
from tap_vero_segment.terminal import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from tap_vero_segment.stores.base import KeptLetter


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


def list_letters(store: str, *, as_json: bool) -> Iterator[str]:
    """Describe each dead letter in a line, without its body; as JSON an object a line.

    Raises:
        SettingError: There is no such store.
        StoreError: It cannot be read.
    """
    with open_reader(store, "store") as reader:
        if not as_json:
            yield _row("number", "received_at", "input", "bytes", "reason")
        for kept in every_letter(reader):
            facts = _facts(kept)
            yield msgspec.json.encode(facts).decode() if as_json else _row(*facts.values())


def show_letter(store: str, number: int, secrets: Iterable[str]) -> str:
    """Describe a dead letter, its body included, for a terminal.

    Args:
        store: The store's URL.
        number: The letter's.
        secrets: What is not shown, wherever it stands.

    Raises:
        SettingError: There is no such store.
        StoreError: It cannot be read.
        UserError: It has no such letter.
    """
    kept = _letter(store, number)
    facts = "\n".join(f"{name}: {value}" for name, value in _facts(kept).items())
    return printable(f"{facts}\n\n{readable(kept.letter.body, secrets)}")


def body_of(store: str, number: int) -> bytes:
    """Return the body of a dead letter as it came.

    Raises:
        SettingError: There is no such store.
        StoreError: It cannot be read.
        UserError: It has no such letter.
    """
    return _letter(store, number).letter.body


def delete_letters(store: str, numbers: Sequence[int]) -> str:
    """Delete dead letters, all of them or none; return what was done, in a line.

    Raises:
        SettingError: The store cannot be opened.
        StoreError: The store failed; nothing was deleted.
        UserError: There is no letter of one of the numbers; nothing was deleted.
    """
    with open_reader(store, "store") as reader:
        check_there(reader, numbers)
    writer = open_writer(store, "store")
    try:
        missing = writer.discard(numbers)
    finally:
        writer.close()
    if missing:  # another process has been quicker
        raise not_there(missing)
    named = sorted(set(numbers))
    return f"dead letters deleted: {len(named)} ({', '.join(map(str, named))})"


def _letter(store: str, number: int) -> KeptLetter:
    with open_reader(store, "store") as reader:
        kept = letter_of(reader, number)
    if kept is None:
        msg = f"there is no dead letter {number}"
        raise UserError(msg)
    return kept


def _facts(kept: KeptLetter) -> dict[str, int | str]:
    letter = kept.letter
    return {
        "number": kept.number,
        "received_at": times.to_text(letter.received_at),
        "input": letter.input,
        "bytes": len(letter.body),
        "reason": letter.reason,
    }


def _row(*cells: int | str) -> str:
    number, received_at, source, size, reason = cells
    return printable(f"{number:>8}  {received_at:27}  {source:8}  {size:>7}  {reason}")


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
