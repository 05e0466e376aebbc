"""``vero-collector dead-letters list``, ``show`` and ``delete``: what was quarantined, and why."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import msgspec

from tap_vero_segment import times
from tap_vero_segment.collector.letters import check_there, every_letter, letter_of, not_there
from tap_vero_segment.errors import UserError
from tap_vero_segment.inputs.body import check_depth
from tap_vero_segment.stores.readers import open_reader
from tap_vero_segment.stores.writers import open_writer
from tap_vero_segment.terminal import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tap_vero_segment.stores.base import KeptLetter


_WRITE_KEY: Final = re.compile(
    r"""
    (writeKey [\\"'\s]* [:=] \s*)
    (?: "(?:[^"\\]|\\.)*"? | [\\"']* [^\\"'\s,;&{}\[\]]+ [\\"']* )
    """,
    re.VERBOSE | re.DOTALL,
)
"""A live secret with its name before it: in JSON, and in what was to be some."""


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


def show_letter(store: str, number: int) -> str:
    """Describe a dead letter, its body included, for a terminal.

    Raises:
        SettingError: There is no such store.
        StoreError: It cannot be read.
        UserError: It has no such letter.
    """
    kept = _letter(store, number)
    facts = "\n".join(f"{name}: {value}" for name, value in _facts(kept).items())
    return printable(f"{facts}\n\n{readable(kept.letter.body)}")


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


def readable(body: bytes) -> str:
    """Return a body as text, as pretty JSON where it is any, without a write key that is in it."""
    try:
        check_depth(msgspec.json.decode(body))
        body = msgspec.json.format(body, indent=2)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        pass  # it may be a letter because it is no such JSON
    return _WRITE_KEY.sub(r"\1…", body.decode(errors="backslashreplace"))
