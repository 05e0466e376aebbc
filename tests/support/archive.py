"""Archives as Segment writes them, made up from a seed, and what a tap has to find in them."""

from __future__ import annotations

import gzip
import itertools
import os
import random
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from tests.support.contract import BY_DEFAULT, VERO_TYPES
from tests.support.stored import Stored

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

WRITE_KEY = "write-key-of-the-archive"
"""The live secret that each call bears."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FIRST_DAY = datetime(2025, 3, 10, tzinfo=UTC)

STREAM_OF_EVENT = {event: stream for stream, event in VERO_TYPES.values()} | {
    "Unsubscribed": "email_unsubscribed"
}
TRACKED = {VERO_TYPES[vero_type][0] for vero_type in BY_DEFAULT}
"""The streams whose events are part of ``tracks``."""

_EVENTS = tuple(STREAM_OF_EVENT)
_OTHER_EVENTS = ("Order Completed", "email sent", "Email Send", "Signed Up", "")
_OTHER_TYPES = ("identify", "page", "screen", "group", "alias")


class Call(NamedTuple):
    """What a tap has to know of a call of ours."""

    id: str
    stream: str
    received_at: str


class ArchiveObject(NamedTuple):
    """An object of an archive; its time is in whole seconds, as S3 has it."""

    path: str
    content: bytes
    modified_at: datetime
    calls: list[Call]


def text_of(moment: datetime) -> str:
    """Write a time as records have it."""
    return moment.isoformat(timespec="microseconds")[:26] + "Z"


def day_folder(day: int) -> str:
    """Return the name of the folder of a day, counted from the first one."""
    return str(int((FIRST_DAY + timedelta(days=day)).timestamp() * 1_000))


def path_of(source: str, day: int, name: str) -> str:
    return f"segment-logs/{source}/{day_folder(day)}/{name}"


def track(number: int, event: str, received_at: datetime, **fields: Any) -> dict[str, Any]:
    """Return a call as Segment archives it."""
    happened_at = (received_at - timedelta(seconds=2)).isoformat(timespec="milliseconds")
    return {
        "anonymousId": f"anonymous-{number}",
        "channel": "server",
        "context": {
            "ip": f"198.51.100.{number % 250}",
            "library": {"name": "vero", "version": "1.0.0"},
            "traits": {"email": f"person{number}@example.com", "plan": "pro"},
            "userAgent": "Mozilla/5.0 (Macintosh)",
        },
        "event": event,
        "integrations": {"All": True},
        "messageId": f"message-{number:07}",
        "originalTimestamp": happened_at,
        "projectId": "project",
        "properties": {
            "campaign_id": number % 40,
            "campaign_name": "Autumn collection",
            "email_id": f"{number}@veromail.com",
            "email_subject": "Ten percent off",
            "batch": number // 100,
        },
        "receivedAt": received_at.isoformat(timespec="milliseconds")[:23] + "Z",
        "sentAt": None,
        "timestamp": happened_at,
        "type": "track",
        "userId": str(number),
        "version": 2,
        "writeKey": WRITE_KEY,
        "_metadata": {"bundled": [], "unbundled": []},
    } | fields


def lines_of(calls: Iterable[dict[str, Any]]) -> bytes:
    return b"".join(msgspec.json.encode(call) + b"\n" for call in calls)


def zipped(content: bytes, level: int = 1) -> bytes:
    return gzip.compress(content, level, mtime=0)


class Maker:
    """Makes up calls and objects, the same ones for the same seed."""

    def __init__(self, seed: int = 11, *, first: int = 1, others: float = 0.3) -> None:
        self.chance = random.Random(seed)
        self._numbers = itertools.count(first)
        self._others = others

    def content(self, count: int, day: int) -> tuple[bytes, list[Call]]:
        """Return as many lines of a day as are wanted, and what of them is ours."""
        lines = []
        ours = []
        for _ in range(count):
            number = next(self._numbers)
            moment = FIRST_DAY + timedelta(days=day, milliseconds=self.chance.randrange(86_400_000))
            if self.chance.random() < self._others:
                lines.append(self._other(number, moment))
                continue
            event = self.chance.choice(_EVENTS)
            call = track(number, event, moment)
            lines.append(call)
            ours.append(Call(call["messageId"], STREAM_OF_EVENT[event], text_of(moment)))
        return lines_of(lines), ours

    def _other(self, number: int, moment: datetime) -> dict[str, Any]:
        event = self.chance.choice(_OTHER_EVENTS)
        if self.chance.random() < 0.5:
            return track(number, event, moment)
        call = track(number, self.chance.choice(["Email Sent", event]), moment)
        call["type"] = self.chance.choice(_OTHER_TYPES)
        if self.chance.random() < 0.5:
            del call["event"]
        return call

    def object(
        self,
        path: str,
        count: int,
        day: int,
        modified_at: datetime,
        *,
        members: int = 1,
        plain: bool = False,
    ) -> ArchiveObject:
        """Make an object up.

        Args:
            path: Its path.
            count: Its lines.
            day: The day that they were received on, counted from the first one.
            modified_at: When it was written.
            members: The gzip members that it consists of.
            plain: Whether it is not gzipped at all.
        """
        content, calls = self.content(count, day)
        if not plain:
            cuts = [len(content) * part // members for part in range(members + 1)]
            content = b"".join(zipped(content[a:b]) for a, b in itertools.pairwise(cuts))
        return ArchiveObject(path, content, modified_at, calls)

    def small(self, objects: int, lines: int, *, days: int = 3) -> list[ArchiveObject]:
        """Return an archive of alike objects, an hour apart."""
        made = []
        for number in range(objects):
            day = number * days // objects
            moment = FIRST_DAY + timedelta(days=days, hours=number)
            path = path_of("source-a", day, f"{number:03}.gz")
            made.append(self.object(path, lines, day, moment))
        return made


def events_of(objects: Iterable[ArchiveObject]) -> list[Stored]:
    """Return the events of an archive in the order in which a tap comes by them."""
    in_order = sorted(objects, key=lambda made: (made.modified_at, made.path))
    return [
        Stored(
            text_of(made.modified_at),
            call.id,
            (call.stream, "tracks") if call.stream in TRACKED else (call.stream,),
        )
        for made in in_order
        for call in made.calls
    ]


def write_object(folder: Path, made: ArchiveObject, after: int = 0) -> int:
    """Write an object to a local folder, with the time that it had elsewhere.

    Args:
        folder: The archive.
        made: The object.
        after: A time of change that this one's is to be later than, in nanoseconds.

    Returns:
        The file's time of change.
    """
    path = folder / made.path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(made.content)
    seconds = made.modified_at.timestamp()
    os.utime(path, (seconds, seconds))
    while (changed_at := path.stat().st_ctime_ns) <= after:  # it has the grain of a few ms
        os.utime(path, (seconds, seconds))
    return changed_at


def write_folder(folder: Path, objects: Iterable[ArchiveObject]) -> str:
    """Write an archive to a local folder; return its URL.

    Its files come in the order of their times, and are read in that order: see :func:`as_written`.
    """
    after = 0
    for made in sorted(objects, key=lambda made: made.modified_at):
        after = write_object(folder, made, after)
    return folder.as_uri()


def as_written(folder: Path, objects: Iterable[ArchiveObject]) -> list[ArchiveObject]:
    """Return objects with the times that they have in a local folder: of their last change."""
    written = []
    for made in objects:
        found = (folder / made.path).stat()
        micros = max(found.st_mtime_ns, found.st_ctime_ns) // 1_000
        written.append(made._replace(modified_at=EPOCH + timedelta(microseconds=micros)))
    return written


class History(NamedTuple):
    """A large archive, and what was in its way before it came to be what it is.

    Attributes:
        objects: All objects that hold calls.
        strays: What else lies about: it holds no call.
        overwritten: Objects that were there first, and were overwritten by a replay.
    """

    objects: list[ArchiveObject]
    strays: list[ArchiveObject]
    overwritten: list[ArchiveObject]


def history(calls: int = 100_000, objects: int = 40, *, seed: int = 11) -> History:
    """Make up an archive of two sources and five days, with what real ones have in them.

    Among its objects are late ones in old days, one that a replay has overwritten, plain files
    with and without ``.gz`` to their names, and one of several gzip members. Some share a second.
    """
    maker = Maker(seed)
    made: list[ArchiveObject] = []
    each, rest = divmod(calls, objects)
    for number in range(objects):
        count = each + rest if number == 0 else each
        source = ("source-a", "source-b")[number % 2]
        day = number * 5 // objects
        moment = FIRST_DAY + timedelta(days=day + 1, minutes=number // 3)
        name = f"{int(moment.timestamp())}000.{maker.chance.getrandbits(48):012x}.gz"
        options: dict[str, Any] = {}
        if number == 3:
            name, options = "plain.json", {"plain": True}
        elif number == 4:
            options = {"plain": True}  # unzipped by whoever has copied it
        elif number == 5:
            options = {"members": 7}
        elif number in {30, 35}:
            day = number - 30  # late: in a folder of days ago
        path = path_of(source, day, name)
        made.append(maker.object(path, count, day, moment, **options))
    replayed = made[8]
    before = maker.object(replayed.path, each, 1, replayed.modified_at)
    late = FIRST_DAY + timedelta(days=5, hours=3)
    made[8] = replayed._replace(modified_at=late)
    nothing = FIRST_DAY + timedelta(days=1)
    strays = [
        ArchiveObject("segment-logs/dummy-object.txt", b"Segment was here", nothing, []),
        ArchiveObject(path_of("source-a", 2, "empty.gz"), b"", nothing, []),
    ]
    return History(made, strays, [before])


def below(objects: Iterable[ArchiveObject], folder: str) -> Iterator[ArchiveObject]:
    """The objects below a folder, their paths seen from there."""
    start = f"{folder}/" if folder else ""
    for made in objects:
        if made.path.startswith(start):
            yield made._replace(path=made.path.removeprefix(start))
