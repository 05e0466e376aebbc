"""The definitions for Meltano Hub, and the project's own ``meltano.yml``.

The Hub publishes its schemas in its repository only. What they ask for is said here; Meltano's own
schema, which comes with Meltano, has the rest.
"""

from __future__ import annotations

import json
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from tests.packaging.hub import FOLDER, LOADER_LACKS, about, definitions, settings, text_of
from tests.packaging.uv import REPOSITORY

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

MELTANO = Draft202012Validator(
    json.loads((files("meltano.schemas") / "meltano.schema.json").read_text(encoding="utf-8"))
)
PROJECT: dict[str, Any] = yaml.safe_load((REPOSITORY / "meltano.yml").read_text(encoding="utf-8"))

OF_THE_HUB = {
    "domain_url",
    "keywords",
    "maintenance_status",
    "quality",
    "supported_python_versions",
}
"""What a plugin has in the Hub, but not in a project."""
REQUIRED = {"name", "namespace", "variant", "label", "quality"}
KNOWN = (
    REQUIRED
    | OF_THE_HUB
    | {
        *("commands", "definition", "description", "docs", "executable", "hidden", "log_parser"),
        *("logo_url", "next_steps", "pip_url", "prereq", "python", "repo", "requires", "settings"),
        *("settings_group_validation", "settings_preamble", "usage"),
    }
)
OF_ITS_KIND = {
    "extractors": {"capabilities", "metadata", "schema", "select"},
    "loaders": {"capabilities", "dialect", "target_schema"},
    "utilities": {"ext_repo"},
}
QUALITIES = {"gold", "silver", "bronze", "unknown"}
STATUSES = {"active", "beta", "development", "inactive", "unknown"}
LOADERS_HAVE = {
    "about",
    "activate-version",
    "batch",
    "datatype-failsafe",
    "hard-delete",
    "schema-flattening",
    "soft-delete",
    "stream-maps",
    "target-schema",
    "validate-records",
}


@pytest.fixture(scope="module")
def generated() -> dict[Path, dict[str, Any]]:
    return definitions()


def problems(document: dict[str, Any]) -> list[str]:
    return [f"{error.json_path}: {error.message}" for error in MELTANO.iter_errors(document)]


def test_the_committed_definitions_are_those_that_are_generated(
    generated: dict[Path, dict[str, Any]],
) -> None:
    assert {*FOLDER.rglob("*.yml")} == {*generated}
    for path, definition in generated.items():
        said = "to mend it: uv run python -m tests.packaging.hub"
        assert path.read_text(encoding="utf-8") == text_of(definition), said


def test_the_hub_takes_the_definitions(generated: dict[Path, dict[str, Any]]) -> None:
    for path, definition in generated.items():
        assert definition["name"] == path.stem
        assert REQUIRED <= definition.keys() <= KNOWN | OF_ITS_KIND[path.parent.name]
        assert definition["maintenance_status"] in STATUSES
        assert definition["quality"] in QUALITIES
        plugin = {key: value for key, value in definition.items() if key not in OF_THE_HUB}
        assert problems({"plugins": {path.parent.name: [plugin]}}) == []
        if path.parent.name == "loaders":
            assert set(definition["capabilities"]) <= LOADERS_HAVE
            assert not LOADER_LACKS & LOADERS_HAVE


def test_meltano_takes_the_project() -> None:
    assert problems(PROJECT) == []
    assert problems(PROJECT | {"schedules": [{"name": "daily"}]}) != []


@pytest.mark.parametrize(
    ("command", "kind"),
    [
        ("tap-vero-segment", "extractors"),
        ("target-segment", "loaders"),
        ("target-vero-duckdb", "loaders"),
    ],
)
def test_the_project_declares_the_settings_that_there_are(command: str, kind: str) -> None:
    told = about(command)
    (declared,) = (each for each in PROJECT["plugins"][kind] if each.get("executable") == command)
    own = {each["name"]: each for each in declared["settings"]}
    theirs = {each["name"]: each for each in settings(told["settings"]["properties"])}
    # Meltano says nothing of a variable of the environment whose setting is not declared.
    assert own.keys() == told["settings"]["properties"].keys()
    for name, setting in own.items():
        for key in ("label", "kind", "sensitive"):
            assert setting.get(key) == theirs[name].get(key), (name, key)
        if name not in {"source", "default_target_schema"}:  # what the project is for
            assert setting.get("value") == theirs[name].get("value"), name
    assert set(declared["capabilities"]) <= set(told["capabilities"])
