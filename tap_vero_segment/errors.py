"""Errors that are told to the user in one line, without a traceback."""

from __future__ import annotations


class UserError(Exception):
    """Something that the user can mend: the message says what, and names the setting.

    Commands print the message as one line and exit with status 1. It never holds a secret or a
    recipient's data.
    """


class SettingError(UserError):
    """A setting that cannot be used as it is.

    Args:
        setting: The setting's name as the user writes it, ``source`` say.
        problem: What is wrong with it, and what would be right.
    """

    def __init__(self, setting: str, problem: str) -> None:
        super().__init__(f"{setting}: {problem}")
        self.setting = setting
        self.problem = problem
