"""What explain prints for resources that have every field there is, held by files that people can read.

A change of what it says is a change of these files: GOLDEN=write pytest tests/unit/cli/test_explain_golden.py
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from swarmcg.cli import explain
from swarmcg.cli.main import main
from swarmcg.resources import LinuxResources, Networking
from tests.unit.resources.hosts import ABLE

GOLDEN: Final = Path(__file__).with_name("golden")
FULL: Final = GOLDEN / "full.json"


def absent(value: Any, path: str = "") -> Iterator[str]:
    """The fields that nothing is asked for, in the value and all of its parts."""
    if isinstance(value, msgspec.Struct):
        for field in msgspec.structs.fields(value):
            inner = getattr(value, field.name)
            if inner is None:
                yield f"{path}{field.encode_name}"
            yield from absent(inner, f"{path}{field.encode_name}.")
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from absent(inner, f"{path}{name}.")
    elif isinstance(value, tuple) and value:
        # One entry with all fields is enough; others may show what a field means without the rest.
        yield from min((list(absent(inner, path)) for inner in value), key=len)


def test_the_full_resources_lack_no_field() -> None:
    assert list(absent(LinuxResources.from_json(FULL.read_text()))) == []


@pytest.mark.parametrize(("name", "words"), [("explain.tsv", []), ("explain.json", ["--json"])])
def test_every_field_is_printed_with_its_file_its_value_and_its_state(
    name: str, words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    able = msgspec.structs.replace(ABLE, network=Networking(links={"eth0": None}, default="eth0"))
    monkeypatch.setattr(explain, "_abilities", lambda *_, **__: able)
    assert main(["explain", "--resources", str(FULL), *words]) == 0
    printed = capsys.readouterr().out
    if os.environ.get("GOLDEN") == "write":
        (GOLDEN / name).write_text(printed)
    assert printed == (GOLDEN / name).read_text()


def test_no_field_of_the_full_resources_is_passed_over() -> None:
    rows = msgspec.json.decode((GOLDEN / "explain.json").read_text())
    named = {row["field"] for row in rows}
    asked = msgspec.json.decode(FULL.read_text())
    for part, fields in asked.items():
        for field in fields if isinstance(fields, dict) else [part]:
            path = field if field == part else f"{part}.{field}"
            assert any(name == path or name.startswith((f"{path}.", f"{path}[")) for name in named), path
