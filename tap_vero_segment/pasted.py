"""What copying leaves around a value: a line end of a file, quotes of a shell, a blank."""

from __future__ import annotations

from typing import Final

from tap_vero_segment.errors import SettingError

_QUOTES: Final = frozenset("\"'`‘’“”")  # noqa: RUF001  # word processors make these


def check_pasted(setting: str, value: str) -> None:
    """Make sure that nothing stands around a secret or a URL, and nothing unseen in it.

    Kubernetes keeps the line end of a file that a secret was made of; ``docker --env-file`` keeps
    quotes. With either, no secret would ever match.

    Args:
        setting: The setting's or variable's name, for the error.
        value: Its value.

    Raises:
        SettingError: Something does.
    """
    if value.endswith(("\n", "\r")):
        problem = "it ends with a line end: remove that (printf %s writes none, echo does)"
    elif value != value.strip():
        problem = "a blank stands before or behind it: remove that"
    elif value and (value[0] in _QUOTES or value[-1] in _QUOTES):
        problem = "a quotation mark stands before or behind it: remove that"
    elif not value.isprintable():
        problem = "it contains a line end, a control character or an invisible one: remove that"
    else:
        return
    raise SettingError(setting, problem)
