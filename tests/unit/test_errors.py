"""Errors say what, why and the cure, and cross processes unharmed."""

import errno
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from swarmcg import errors
from swarmcg.errors import (
    BotCodeError,
    ConfigError,
    StartError,
    SwarmcgError,
    UnenforceableError,
    WaitTimeout,
    from_dict,
    printable,
)

FAMILY = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, SwarmcgError)]
TEXT = st.text(max_size=300)


def test_the_text_has_what_why_and_the_cure() -> None:
    error = SwarmcgError(
        "It broke", path="/x", value=7, errno=errno.ENOENT, cause="it is gone", remedy="Make it."
    )
    assert str(error).splitlines() == [
        "It broke (/x) (value 7)",
        "it is gone (ENOENT: No such file or directory)",
        "Make it.",
    ]


def test_what_is_not_known_takes_no_line() -> None:
    assert str(SwarmcgError("It broke")) == "It broke"
    assert str(SwarmcgError("It broke", errno=errno.EBUSY)) == "It broke\nEBUSY: Device or resource busy"


def test_what_the_sentence_names_is_not_said_twice() -> None:
    assert SwarmcgError("Cannot read /x of 7", path="/x", value=7).headline == "Cannot read /x of 7"


def test_an_errno_without_a_name_is_a_number() -> None:
    assert SwarmcgError("x", errno=99999).reason.startswith("99999: ")


def test_a_path_may_be_any_path() -> None:
    assert SwarmcgError("x", path=Path("/y")).path == "/y"


def test_a_list_of_facts_is_for_programs() -> None:
    rows = [{"field": "memory.limit"}]
    error = UnenforceableError("No", value=rows)
    assert error.value == rows
    assert "field" not in str(error)


@given(TEXT, TEXT, TEXT, TEXT)
def test_no_error_obeys_or_breaks_the_terminal_in_its_first_line(
    what: str, path: str, value: str, cause: str
) -> None:
    error = SwarmcgError(what, path=path, value=value, cause=cause)
    assert error.headline.isprintable()


@given(st.text(st.characters()))
def test_printable_text_is_short_printable_and_encodable(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert len(shown) <= 200
    shown.encode()


@given(st.text(st.characters(categories=["L", "N", "P"]), max_size=200))
def test_printable_text_stays_as_it_is(text: str) -> None:
    assert printable(text) == text


@pytest.mark.parametrize("kind", FAMILY)
@pytest.mark.parametrize(
    "facts",
    [
        {},
        {"path": "/x", "value": 7, "errno": 2, "cause": "c", "remedy": "r"},
        {"value": "\udcff\n"},
        {"value": True},
    ],
)
def test_an_error_crosses_a_process_as_json(kind: type[SwarmcgError], facts: dict[str, Any]) -> None:
    error = kind("What", **facts)
    back = from_dict(json.loads(json.dumps(error.to_dict())))
    assert type(back) is kind
    assert (str(back), vars(back)) == (str(error), vars(error))


def test_the_facts_of_the_leaves_cross_too() -> None:
    start = from_dict(StartError("x", step="exec", errno=2).to_dict())
    assert isinstance(start, StartError)
    assert start.step == "exec"
    code = from_dict(BotCodeError("x", status=403).to_dict())
    assert isinstance(code, BotCodeError)
    assert code.status == 403


def test_the_rows_of_what_cannot_be_enforced_cross_as_they_are() -> None:
    rows = [
        {
            "field": "memory.limit",
            "file": "memory.max",
            "value": "1",
            "why": "w",
            "enforceable": False,
            "remedy": None,
        }
    ]
    back = from_dict(json.loads(json.dumps(UnenforceableError("x", value=rows).to_dict())))
    assert back.value == rows


def test_an_error_of_an_unknown_kind_is_still_one_of_ours() -> None:
    assert type(from_dict({"error": "FromTheFuture", "what": "x"})) is SwarmcgError


def test_errors_are_also_what_python_s_own_code_expects() -> None:
    assert issubclass(WaitTimeout, TimeoutError)
    assert issubclass(ConfigError, ValueError)


def test_all_of_the_family_are_public() -> None:
    assert {kind.__name__ for kind in FAMILY} <= set(errors.__all__)
