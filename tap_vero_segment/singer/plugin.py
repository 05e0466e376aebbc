"""What the tap and the target share as Singer programs: an error is one line."""

from __future__ import annotations

import json
import os
import signal
import sys
from contextlib import contextmanager
from decimal import Decimal
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, NoReturn, Protocol, Self, TypeVar

import click
from singer_sdk import Target
from singer_sdk.configuration._dict_config import parse_environment_config
from singer_sdk.exceptions import (
    ConfigValidationError,
    MissingKeyPropertiesError,
    RecordsWithoutSchemaException,
)
from singer_sdk.helpers import capabilities
from singer_sdk.helpers._classproperty import classproperty
from singer_sdk.plugin_base import JSONSchemaValidator, PluginBase, SingerCommand, _ConfigInput
from singer_sdk.singerlib.exceptions import InvalidInputLine

from tap_vero_segment.errors import SettingError, UserError
from tap_vero_segment.singer import stream_maps

if TYPE_CHECKING:
    import logging
    from collections.abc import Generator, Iterator, Mapping


_KINDS: Final[Mapping[str, str]] = {
    "string": "text",
    "object": "an object",
    "array": "a list",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
}
"""The types of JSON schema, for people."""


def end_at_the_next_signal() -> None:
    """Let a second signal, of either kind, end the run at once: the first may wait for ever."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


def parse_json(option: str, name: str, text: str) -> Any:
    """Read the content of a file of the command line.

    Args:
        option: The option that names the file, for errors.
        name: The file.
        text: Its content.

    Raises:
        UserError: It is not JSON. What stands there is not repeated.
    """
    try:
        return json.loads(text.removeprefix("\ufeff"), parse_float=Decimal, parse_constant=_refuse)
    except json.JSONDecodeError as error:
        problem = f"not JSON: {error.msg} in line {error.lineno}, column {error.colno}"
        raise _unusable(option, name, problem) from error
    except RecursionError as error:
        raise _unusable(option, name, "nested too deeply") from error
    except ValueError as error:
        problem = "not JSON that can be used: it has NaN, Infinity, or a number of too many digits"
        raise _unusable(option, name, problem) from error


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)


def _unusable(option: str, name: str, problem: str) -> UserError:
    return UserError(f"{option}: {name} is {problem}")


def _read_json(option: str, name: str) -> Any:
    try:
        text = Path(name).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:  # not UTF-8, or a NUL in its name
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        msg = f"{option}: {name} cannot be read: {reason}"
        raise UserError(msg) from error
    return parse_json(option, name, text)


class _Settings(Protocol):
    @classmethod
    def read(cls, config: Mapping[str, Any]) -> Self: ...


_S = TypeVar("_S", bound=_Settings)


class SingerProgram(PluginBase, Generic[_S]):
    """A tap or target that reports what the user can correct in one line, and exits with status 1.

    No setting's value is repeated, as any may hold a secret.

    Attributes:
        settings_class: What reads the settings, and checks what their JSON schema cannot.
        renamed_settings: Names that a config file may have instead of a setting's own.
    """

    settings_class: type[_S]
    renamed_settings: ClassVar[Mapping[str, str]] = {}

    @cached_property
    def settings(self) -> _S:
        """The settings, read and checked.

        Raises:
            SettingError: A setting cannot be used.
        """
        return self.settings_class.read(self.config)

    def setup_mapper(self) -> None:
        """Prepare the stream maps."""
        self._mapper = stream_maps.Mapper(self.config, self.logger)

    def _validate_config(self, *, raise_errors: bool = True) -> list[str]:
        schema = self.config_jsonschema
        self.append_builtin_config(schema)
        validator = JSONSchemaValidator(schema)
        try:
            stream_maps.check(self.config.get(stream_maps.SETTING))
            errors = [self._told(error) for error in validator.iter_errors(self._config)]
            if raise_errors and not errors:
                _ = self.settings
        except SettingError as error:
            errors = [str(error)]
        if errors:
            summary = "Config validation failed"  # as the SDK says it
            if raise_errors:
                raise ConfigValidationError(summary, errors=errors, schema=schema)
            self.logger.warning(summary)
        return errors

    def _told(self, error: Any) -> str:
        """Say what is wrong with a setting; the schema's own errors repeat its value."""
        setting = ".".join(str(name) for name in error.absolute_path)
        expected = error.validator_value
        match error.validator:
            case "required":
                setting = next(name for name in expected if name not in error.instance)
                problem = (
                    "required: set it in the file of --config FILE, or as "
                    f"{self._env_var_prefix}{setting.upper()} with --config=ENV"
                )
            case "type":
                types = [expected] if isinstance(expected, str) else expected
                problem = f"not {' or '.join(_KINDS[kind] for kind in types if kind in _KINDS)}"
            case "enum":
                problem = f"none of {', '.join(name for name in expected if name)}"
            case "minimum":
                problem = f"less than {expected}"
            case _:
                problem = "nothing that can be used there"
        return f"{setting}: it is {problem}"

    @classproperty
    def _env_var_config(cls) -> dict[str, Any]:  # noqa: N805
        try:
            found: dict[str, Any] = super()._env_var_config
        except ValueError as error:
            raise cls._unread_variable() from error
        return found

    @classmethod
    def _unread_variable(cls) -> SettingError:
        """Return the error of the setting that cannot be read from its environment variable."""
        prefix = cls._env_var_prefix
        for setting, schema in cls.config_jsonschema["properties"].items():
            try:
                parse_environment_config({"properties": {setting: schema}}, prefix)
            except ValueError:
                kind = "whole number" if "integer" in schema["type"] else "JSON"
                return SettingError(setting, f"{prefix}{setting.upper()} holds no {kind}")
        raise AssertionError  # pragma: no cover  # one of them could not be read

    @classmethod
    def cb_config(
        cls,
        ctx: click.Context,  # noqa: ARG003
        param: click.Option,  # noqa: ARG003
        value: tuple[str, ...],
    ) -> _ConfigInput:
        """Read the files of ``--config``, and warn of settings in them that there are not."""
        found = _ConfigInput()
        for name in value:
            if name == "ENV":
                found.parse_env = True
                continue
            config = _read_json("--config", name)
            if not isinstance(config, dict):
                raise _unusable("--config", name, "JSON, but not an object of settings")
            found.config |= config
        for other, own in cls.renamed_settings.items():
            if other in found.config:
                found.config.setdefault(own, found.config.pop(other))
        schema = cls.config_jsonschema
        cls.append_builtin_config(schema)
        for told in unknown_settings(found.config, schema):
            cls.logger.warning("--config: %s", told)
        return found

    @classmethod
    def get_singer_command(cls) -> click.Command:
        """Return the command line, which tells the user's errors in one line."""
        command = super().get_singer_command()
        for parameter in command.params:
            if parameter.name == "config":
                parameter.type = click.Path()  # what a shell completes
        return _Command(
            name=command.name,
            callback=_told_in_a_line(cls.logger)(command.callback or cls.invoke),
            params=command.params,
            help=command.help,
            context_settings=command.context_settings,
            logger=cls.logger,
        )


class SingerTarget(SingerProgram[_S], Target):
    """A target that, of the SDK's settings, has none that are for its sinks or its own batches."""

    @classmethod
    def append_builtin_config(cls, config_jsonschema: dict[str, Any]) -> None:
        """Add the SDK's settings, except those of targets: others are in our own words."""
        super(Target, cls).append_builtin_config(config_jsonschema)


class _Command(SingerCommand):
    """The command line of a tap or target."""

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        # --test and --discover run while the arguments are read.
        if kwargs.get("resilient_parsing"):  # because of Tab: no reason to ask the source
            for parameter in self.params:
                parameter.callback = None
        with _told_in_a_line(self.logger):
            return super().make_context(*args, **kwargs)


@contextmanager
def _told_in_a_line(logger: logging.Logger) -> Generator[None]:
    """Tell what the user can mend in one line, without a traceback, and exit with status 1."""
    try:
        yield
    except ConfigValidationError as error:
        logger.error("%s", "; ".join(error.errors))  # noqa: TRY400
        sys.exit(1)
    except UserError as error:
        logger.error("%s", error)  # noqa: TRY400
        sys.exit(1)
    except (InvalidInputLine, MissingKeyPropertiesError, RecordsWithoutSchemaException) as error:
        logger.error("the tap: %s", " ".join(str(error).split()))  # noqa: TRY400
        sys.exit(1)
    except MemoryError:
        logger.error("out of memory: allow the process more")  # noqa: TRY400
        sys.exit(1)
    except BrokenPipeError:
        logger.error("whoever reads the output has closed the pipe")  # noqa: TRY400
        # What is left in the buffer can go nowhere: not an error of its own at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        if error.errno is None:  # of a library: not what the system says
            raise
        where = f": {error.filename}" if error.filename else ""
        logger.error("the system refuses: %s%s", error.strerror, where)  # noqa: TRY400
        sys.exit(1)


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
