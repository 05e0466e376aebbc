"""What the tap and the target share as Singer programs: errors are told in one line."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

import click
from singer_sdk.exceptions import (
    ConfigValidationError,
    MapExpressionError,
    MissingKeyPropertiesError,
    RecordsWithoutSchemaException,
    StreamMapConfigError,
)
from singer_sdk.plugin_base import JSONSchemaValidator, PluginBase, SingerCommand, _ConfigInput
from singer_sdk.singerlib.exceptions import InvalidInputLine

from tap_vero_segment.errors import SettingError, UserError
from tap_vero_segment.unknown_settings import unknown_settings

if TYPE_CHECKING:
    import logging
    from collections.abc import Generator, Mapping, Sequence


def end_at_the_next_signal() -> None:
    """Let a second signal, of either kind, end the run at once: the first may wait for ever."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


class SingerProgram(PluginBase):
    """A tap or target that tells what the user can mend in one line, and exits with status 1.

    Attributes:
        secret_texts: Settings that are text and may hold a secret.
    """

    secret_texts: ClassVar[Sequence[str]] = ()

    def check_settings(self) -> None:
        """Check what the settings' JSON schema cannot.

        Raises:
            SettingError: A setting cannot be used.
        """

    def _validate_config(self, *, raise_errors: bool = True) -> list[str]:
        try:
            if raise_errors:
                self._check_required()
                # The schema's own errors repeat the value, which may be a secret.
                _check_texts(self.config, self.secret_texts)
                _check_secrets(self._config, self.config_jsonschema)
            errors = super()._validate_config(raise_errors=raise_errors)
            if raise_errors:
                self.check_settings()
        except SettingError as error:
            raise ConfigValidationError(
                str(error), errors=[str(error)], schema=self.config_jsonschema
            ) from error
        return errors

    def _check_required(self) -> None:
        """Say which setting is missing, and where it belongs."""
        for setting in self.config_jsonschema["required"]:
            if setting not in self.config:
                variable = f"{self._env_var_prefix}{setting.upper()}"
                problem = (
                    f"it is required: set it in the file of --config FILE, or as {variable} with "
                    "--config=ENV"
                )
                raise SettingError(setting, problem)

    @classmethod
    def cb_config(
        cls, ctx: click.Context, param: click.Option, value: tuple[str, ...]
    ) -> _ConfigInput:
        """Read the files of ``--config``, and warn of settings in them that there are not."""
        try:
            found = super().cb_config(ctx, param, value)
        except (OSError, ValueError) as error:
            msg = f"--config: {error}"
            raise UserError(msg) from error
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


def _check_texts(config: Mapping[str, Any], settings: Sequence[str]) -> None:
    """Say which setting is not text, without repeating it."""
    for setting in settings:
        if not isinstance(config.get(setting), (str, type(None))):
            raise SettingError(setting, "it is not text")


def _check_secrets(config: dict[str, Any], schema: dict[str, Any]) -> None:
    """Say which secret is not of its type, without repeating it."""
    for error in JSONSchemaValidator(schema).iter_errors(config):
        if error.schema.get("secret"):
            setting = ".".join(map(str, error.absolute_path))
            kind = "an object" if "object" in error.schema["type"] else "text"
            raise SettingError(setting, f"it is not {kind}")


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
    except (StreamMapConfigError, MapExpressionError) as error:
        logger.error("stream_maps: %s", error)  # noqa: TRY400
        sys.exit(1)
    except (InvalidInputLine, MissingKeyPropertiesError, RecordsWithoutSchemaException) as error:
        logger.error("the tap: %s", " ".join(str(error).split()))  # noqa: TRY400
        sys.exit(1)
    except BrokenPipeError:
        logger.error("whoever reads the output has closed the pipe")  # noqa: TRY400
        # What is left in the buffer can go nowhere: not an error of its own at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
