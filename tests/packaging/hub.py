"""Definitions for Meltano Hub, made from what the commands say of themselves.

``uv run python -m tests.packaging.hub`` writes them to ``.github/hub``. Whoever hands them in
adds ``logo_url``, and the owner's name as ``variant``.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import yaml

from tap_vero_segment.collector.cli import main as collector
from tap_vero_segment.collector.settings import ENVIRONMENT, FORWARD_HEADERS, Secrets
from tests.packaging.uv import REPOSITORY
from tests.support.collector import clean_environment

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER = REPOSITORY / ".github" / "hub"
HEADER = "# Written by `uv run python -m tests.packaging.hub`.\n"

LOADER_LACKS = {"structured-logging"}
"""Capabilities that the Hub knows of extractors only."""

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PAGES = {
    "tap-vero-segment": "tap/settings",
    "target-segment": "loading/target-segment",
    "target-vero-duckdb": "loading/target-vero-duckdb",
    "vero-collector": "collector/running",
}
"""The page of the documentation for each."""

COMMON = {
    "repo": PROJECT["urls"]["Repository"],
    "variant": "original",
    "pip_url": "tap-vero-segment",
    "maintenance_status": "beta",
    "quality": "unknown",
    "domain_url": "https://www.getvero.com",
    "keywords": ["vero", "segment", "email", "webhook"],
}


def definitions() -> dict[Path, dict[str, Any]]:
    """Every definition by its file."""
    tap, target = about("tap-vero-segment"), about("target-segment")
    duckdb = about("target-vero-duckdb")
    project = yaml.safe_load((REPOSITORY / "meltano.yml").read_text(encoding="utf-8"))
    extractor = project["plugins"]["extractors"][0]
    return {
        FOLDER / "extractors" / "tap-vero-segment.yml": singer(tap, "Vero")
        | {
            "capabilities": sorted(tap["capabilities"]),
            "select": extractor["select"],
            "pip_url": "tap-vero-segment[postgres]",
        },
        FOLDER / "loaders" / "target-segment.yml": singer(target, "Segment")
        | {
            "capabilities": sorted(set(target["capabilities"]) - LOADER_LACKS),
            "domain_url": "https://segment.com",
        },
        FOLDER / "loaders" / "target-vero-duckdb.yml": singer(duckdb, "DuckDB (exact)")
        | {
            "capabilities": sorted(set(duckdb["capabilities"]) - LOADER_LACKS),
            "domain_url": "https://duckdb.org",
            "keywords": ["duckdb", "meltano_sdk"],
            "pip_url": "tap-vero-segment[duckdb]",
        },
        FOLDER / "utilities" / "vero-collector.yml": utility(),
    }


def page(name: str) -> str:
    return f"{PROJECT['urls']['Documentation']}/en/latest/{PAGES[name]}.html"


def text_of(definition: dict[str, Any]) -> str:
    return HEADER + yaml.safe_dump(definition, allow_unicode=True, width=100)


@cache
def about(command: str) -> dict[str, Any]:
    done = subprocess.run(
        [Path(sys.executable).with_name(command), "--about", "--format=json"],
        env=clean_environment(),
        capture_output=True,
        timeout=60,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def singer(about: dict[str, Any], label: str) -> dict[str, Any]:
    """The definition of a tap or target."""
    schema = about["settings"]
    return COMMON | {
        "name": about["name"],
        "docs": page(about["name"]),
        "namespace": about["name"].replace("-", "_"),
        "label": label,
        "description": about["description"],
        "executable": about["name"],
        "keywords": [*COMMON["keywords"], "meltano_sdk"],
        "supported_python_versions": about["supported_python_versions"],
        "settings": [*settings(schema["properties"])],
        "settings_group_validation": [schema["required"]],
    }


def settings(properties: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The Hub's settings, each object a single one.

    Were its parts declared, too, Meltano would hand on an object of nothing but nulls where none is
    set; were only they declared, it would not read the object from the environment.
    """
    for name, schema in properties.items():
        setting = {
            "name": name,
            "label": schema["title"],
            "description": schema["description"],
            "kind": kind(schema),
        }
        if "default" in schema:
            setting["value"] = schema["default"]
        if holds_a_secret(schema):
            setting["sensitive"] = True
        yield setting


def holds_a_secret(schema: dict[str, Any]) -> bool:
    parts = schema.get("properties", {}).values()
    return schema.get("secret", False) or any(map(holds_a_secret, parts))


def kind(schema: dict[str, Any]) -> str:
    if schema.get("format") == "date-time":
        return "date_iso8601"
    (found,) = set(schema["type"]) - {"null"}
    return str(found)


def utility() -> dict[str, Any]:
    return COMMON | {
        "name": "vero-collector",
        "docs": page("vero-collector"),
        "namespace": "vero_collector",
        "label": "Vero collector",
        "description": "Durable collector of Vero's webhooks, which tap-vero-segment reads.",
        "executable": "vero-collector",
        "pip_url": "tap-vero-segment[collector,postgres,report]",
        "commands": {
            name: {"args": name, "description": command.get_short_help_str(200)}
            for name, command in sorted(collector.commands.items())
            if not command.hidden
        },
        "settings": [*secrets(), *options()],
    }


def secrets() -> Iterator[dict[str, Any]]:
    for name in Secrets._fields:
        yield {
            "name": name,
            "label": label(name),
            "description": "A secret of `vero-collector init`; unset, its endpoint returns 404.",
            "kind": "string",
            "sensitive": True,
            "env": f"{ENVIRONMENT}{name.upper()}",
        }
    name = FORWARD_HEADERS.removeprefix(ENVIRONMENT).lower()
    yield {
        "name": name,
        "label": label(name),
        "description": "Headers that the destinations of `forward` get: `Name: value`, or JSON.",
        "kind": "string",
        "sensitive": True,
        "env": FORWARD_HEADERS,
    }


def options() -> Iterator[dict[str, Any]]:
    """What ``serve`` can be told by its environment."""
    for option in collector.commands["serve"].params:
        if not isinstance(option, click.Option) or not isinstance(option.envvar, str):
            continue
        name = option.envvar.removeprefix(ENVIRONMENT).lower()
        setting: dict[str, Any] = {
            "name": name,
            "label": label(name),
            "description": option.help,
            "kind": "string",
            "env": option.envvar,
        }
        if option.is_flag:
            setting["kind"] = "boolean"
        elif isinstance(option.type, click.types.IntParamType):
            setting["kind"] = "integer"
        elif isinstance(option.type, click.Choice):
            setting["kind"] = "options"
            setting["options"] = [{"label": each, "value": each} for each in option.type.choices]
        if isinstance(option.default, (int, str)) and not option.is_flag:
            setting["value"] = option.default
        yield setting


def label(name: str) -> str:
    return name.replace("_", " ").capitalize()


if __name__ == "__main__":
    for path, definition in definitions().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text_of(definition), encoding="utf-8")
        print(path.relative_to(REPOSITORY))  # noqa: T201  # a command's answer
