"""The setting ``stream_maps``: what of it cannot be used, what it names, what fails on an event.

The SDK evaluates it. Its own errors repeat the expressions, which may hold a secret or somebody's
address, and an expression that fails on a value ends in a traceback that names no column.
"""

from __future__ import annotations

import ast
import logging
from copy import deepcopy
from difflib import get_close_matches
from fnmatch import fnmatch
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from singer_sdk.exceptions import MapExpressionError, StreamMapConfigError
from singer_sdk.mapper import (
    MAPPER_ALIAS_OPTION,
    MAPPER_ELSE_OPTION,
    MAPPER_FILTER_OPTION,
    MAPPER_KEY_PROPERTIES_OPTION,
    MAPPER_SOURCE_OPTION,
    NULL_STRING,
    CustomStreamMap,
    PluginMapper,
)

from tap_vero_segment.errors import SettingError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

SETTING: Final = "stream_maps"
"""The setting, for errors."""

_NO_EXPRESSIONS: Final = frozenset(
    {MAPPER_ALIAS_OPTION, MAPPER_ELSE_OPTION, MAPPER_KEY_PROPERTIES_OPTION, MAPPER_SOURCE_OPTION}
)

_NOTHING: Final = (None, NULL_STRING)
"""How a stream or a column is left out."""

_FLATTENING: Final = (
    "flattening_max_depth",
    "flattening_max_key_length",
    "flattening_separator",
)

_HASHES: Final = frozenset({"md5", "sha256"})
_ALIKE: Final = 0.85
"""How like a column's name another must be to be taken for a slip of it; difflib's ratio."""

_MISSING: Final = {"NameNotDefined": "name", "FunctionNotDefined": "func_name"}
"""Errors of simpleeval, which the SDK evaluates with, and their attribute that says what is
missing."""
_OF_VALUES: Final = frozenset({"AttributeDoesNotExist", "AttributeError", "KeyError", "TypeError"})

# The SDK writes filters to the log as they are.
logging.getLogger("singer_sdk.mapper").setLevel(logging.WARNING)


def check(maps: Any) -> None:
    """Say what of the setting the SDK would trip over; of what is no object, nothing.

    Raises:
        SettingError: It cannot be used.
    """
    if not isinstance(maps, dict):
        return
    _check_else(maps, SETTING)
    for stream, options in maps.items():
        if stream.startswith("__") and stream != MAPPER_ELSE_OPTION:
            raise _error(SETTING, stream, "there is no such option")
        if isinstance(options, dict):
            _check_stream(options, stream, f"{SETTING}.{stream}")
        elif options not in _NOTHING:
            raise _error(SETTING, stream, "it is neither an object nor null")


def _check_stream(options: Mapping[str, Any], stream: str, name: str) -> None:
    _check_else(options, name)
    if MAPPER_ALIAS_OPTION in options and not _is_alias(options[MAPPER_ALIAS_OPTION], stream):
        problem = "it is neither a name nor an expression that makes one"
        raise _error(name, MAPPER_ALIAS_OPTION, problem)
    if not isinstance(options.get(MAPPER_SOURCE_OPTION, ""), str):
        raise _error(name, MAPPER_SOURCE_OPTION, "it is not text")
    for column, expression in options.items():
        if column not in _NO_EXPRESSIONS and expression not in _NOTHING:
            _check_expression(expression, name, column)


def _check_else(options: Mapping[str, Any], name: str) -> None:
    if options.get(MAPPER_ELSE_OPTION) not in _NOTHING:
        raise _error(name, MAPPER_ELSE_OPTION, f"it is neither null nor {NULL_STRING}")


def _error(where: str, name: str, problem: str) -> SettingError:
    return SettingError(f"{where}.{name}", problem)


def _is_alias(value: Any, stream: str) -> bool:
    try:
        return isinstance(PluginMapper._eval_stream(value, stream), str)  # noqa: SLF001
    except Exception:  # noqa: BLE001  # whatever an expression may raise
        return False


def _check_expression(value: Any, name: str, column: str) -> None:
    try:
        if isinstance(value, str) and isinstance(ast.parse(value).body[0], ast.Expr):
            return
    except (SyntaxError, ValueError, IndexError):
        pass
    raise _error(name, column, "it is no expression in Python")


def check_names(config: Mapping[str, Any], columns: Mapping[str, Collection[str]]) -> list[str]:
    """See that the streams and columns exist that the stream maps name.

    The SDK passes over what does not exist, so that what was to be removed or hashed would go out
    as it is.

    Args:
        config: The configuration.
        columns: The columns of each stream that exists.

    Returns:
        Warnings of names that were meant to do something else perhaps.

    Raises:
        SettingError: Something that does not exist is to be removed, hashed or replaced.
    """
    maps = config.get(SETTING) or {}
    warnings = list(_unused(config))
    for name, options in maps.items():
        if name == MAPPER_ELSE_OPTION:
            continue
        source = options.get(MAPPER_SOURCE_OPTION, name) if isinstance(options, dict) else name
        matched = [of for stream, of in columns.items() if fnmatch(stream, source)]
        if isinstance(options, dict) and matched:
            known = set().union(*matched)
            for column, expression in options.items():
                if column not in known and not column.startswith("__"):
                    warnings += _check_column(column, expression, options, known, name)
        elif not matched:
            problem = f"there is no stream {source}{hint_of(source, columns)}"
            if (
                _protects(options, set().union(*columns.values()))
                and MAPPER_ELSE_OPTION not in maps
            ):
                raise _error(SETTING, name, f"{problem}. Nothing would be removed or changed")
            warnings.append(f"{SETTING}.{name}: {problem}. It is ignored")
    return warnings


class NamesInInput:
    """Checks the names in a target's stream maps, as SCHEMA messages tell what exists.

    Args:
        config: The configuration.
        logger: Where warnings go.
    """

    def __init__(self, config: Mapping[str, Any], logger: logging.Logger) -> None:
        self._config = config
        self._logger = logger
        self._columns: dict[str, Collection[str]] = {}

    def add(self, stream: str, schema: Mapping[str, Any]) -> None:
        """Check the maps that name this stream itself, before any of its records goes out.

        A column under a pattern may be another stream's, which comes later: :meth:`end` sees it.

        Raises:
            SettingError: A column that does not exist is to be removed, hashed or replaced.
        """
        self._columns[stream] = tuple(schema.get("properties", ()))
        maps = self._config.get(SETTING) or {}
        own = {
            name: options
            for name, options in maps.items()
            if isinstance(options, dict) and options.get(MAPPER_SOURCE_OPTION, name) == stream
        }
        if own:
            check_names({SETTING: own}, {stream: self._columns[stream]})

    def end(self) -> None:
        """Warn of what had no effect, now that all streams are known, patterns included."""
        for name, options in (self._config.get(SETTING) or {}).items():
            if name == MAPPER_ELSE_OPTION:
                continue
            source = options.get(MAPPER_SOURCE_OPTION, name) if isinstance(options, dict) else name
            if not any(fnmatch(stream, source) for stream in self._columns):
                hint = hint_of(source, self._columns)
                warnings = [f"{SETTING}.{name}: no stream {source} came in{hint}"]
            else:
                try:
                    warnings = check_names({SETTING: {name: options}}, self._columns)
                except SettingError as error:
                    warnings = [str(error)]
            for warning in warnings:
                self._logger.warning("%s", warning)


def _unused(config: Mapping[str, Any]) -> Iterator[str]:
    """Yield warnings of settings that need another one, or a package, to have an effect."""
    if not config.get("flattening_enabled"):
        for name in _FLATTENING:
            if config.get(name) is not None:
                yield f"{name}: ignored, as flattening_enabled is not true"
    if config.get("faker_config") and find_spec("faker") is None:
        yield "faker_config: ignored, as the package faker is not installed"


def _protects(options: Any, known: Collection[str]) -> bool:
    """Whether a stream's map keeps something from going out as it is."""
    if not isinstance(options, dict):
        return True
    return any(
        column in {MAPPER_ELSE_OPTION, MAPPER_FILTER_OPTION}
        or (column not in _NO_EXPRESSIONS and (column in known or _masks(expression)))
        for column, expression in options.items()
    )


def _check_column(
    column: str,
    expression: Any,
    options: Mapping[str, Any],
    known: Collection[str],
    stream: str,
) -> list[str]:
    """See what a map makes of a column that no stream has; return warnings."""
    problem = f"there is no column {column}{hint_of(column, known)}"
    meant = get_close_matches(column, known, n=1, cutoff=_ALIKE)
    setting = f"{SETTING}.{stream}.{column}"
    removes = expression in _NOTHING
    if (removes or (meant and _masks(expression))) and MAPPER_ELSE_OPTION not in options:
        done = "removed" if removes else "hashed or replaced"
        raise SettingError(setting, f"{problem}. Nothing would be {done}")
    if removes or meant:
        done = "ignored" if removes else "added"
        return [f"{setting}: {problem}. It is {done}"]
    if MAPPER_ELSE_OPTION in options:
        return []
    return [
        f"{setting}: a new column has the hash of {each}, which also goes out "
        f"as it is: set {each} to null to remove it"
        for each in sorted((_hashed(expression) & set(known)) - options.keys())
    ]


def _masks(expression: Any) -> bool:
    """Whether an expression puts something else in the place of a value."""
    if expression in _NOTHING:
        return True
    names = _names(ast.parse(expression))
    return bool(names & {*_HASHES, "fake", "self"}) or not names


def _hashed(expression: str) -> set[str]:
    """Return the names of what an expression hashes."""
    hashed: set[str] = set()
    for node in ast.walk(ast.parse(expression)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            hashed |= _names(node) if node.func.id in _HASHES else set()
    return hashed


def _names(node: ast.AST) -> set[str]:
    return {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}


def hint_of(name: str, known: Iterable[str]) -> str:
    """Return the name that was probably meant, as the end of a message; empty: none is close."""
    near = get_close_matches(name, list(known), n=1)
    return f"; {near[0]} was meant perhaps" if near else ""


class Mapper(PluginMapper):
    """The SDK's stream maps, which tell what fails in one line.

    Args:
        config: The configuration.
        logger: Whom the SDK tells of what it has found.

    Raises:
        SettingError: They cannot be used.
    """

    def __init__(self, config: Mapping[str, Any], logger: logging.Logger) -> None:
        # The SDK takes __else__ out of what it is given, and trips over settings that are null.
        own = {name: deepcopy(value) for name, value in config.items() if value is not None}
        super().__init__(plugin_config=own, logger=logger)

    def register_raw_stream_schema(
        self, stream_name: str, schema: dict[str, Any], key_properties: Sequence[str] | None
    ) -> None:
        """Prepare a stream's maps.

        Raises:
            SettingError: They cannot be used with that stream.
        """
        try:
            super().register_raw_stream_schema(stream_name, schema, key_properties)
        except StreamMapConfigError as error:
            raise SettingError(SETTING, str(error)) from error
        except ValueError as error:
            if not self.flattening_options.enabled:
                raise
            # The SDK shortens the names of columns, those that are not nested among them.
            problem = f"too short for {stream_name}: two of its columns would have the same name"
            raise SettingError("flattening_max_key_length", problem) from error
        for stream_map in self.stream_maps[stream_name]:
            if type(stream_map) is CustomStreamMap:
                stream_map.__class__ = _ToldMap  # the SDK has no place to say so


class _ToldMap(CustomStreamMap):
    """A stream's map that tells which of its expressions fails on an event."""

    def _eval(
        self,
        expr: str,
        expr_parsed: ast.Expr,
        record: dict[str, Any],
        property_name: str | None,
    ) -> str | int | float:
        try:
            return super()._eval(expr, expr_parsed, record, property_name)
        except Exception as error:
            name = f"{self.stream_alias}.{property_name or MAPPER_FILTER_OPTION}"
            raise SettingError(SETTING, f"{name}: {_problem(error)}") from error


def _problem(error: Exception) -> str:
    """Say what is wrong with an expression, without it and without the event's values."""
    cause = error.__cause__ if isinstance(error, MapExpressionError) and error.__cause__ else error
    kind = type(cause).__name__
    if kind in _MISSING:
        return f"there is no column or function {getattr(cause, _MISSING[kind])}"
    hint = "; a column can be null, and an object without a key" if kind in _OF_VALUES else ""
    return f"it fails on an event with {kind}{hint}"
