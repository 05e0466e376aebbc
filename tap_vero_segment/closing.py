"""What is opened and has to be closed, as a context manager."""

from __future__ import annotations

from abc import abstractmethod
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self


class Closable(Protocol):
    """What can be closed, by hand or at the end of a ``with`` block."""

    def close(self) -> None:
        """Let go of what was opened."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None: ...


class Closing(AbstractContextManager):  # type: ignore[type-arg]  # it enters as what it is
    """Is closed at the end of a ``with`` block."""

    @abstractmethod
    def close(self) -> None:
        """Let go of what was opened."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        self.close()
