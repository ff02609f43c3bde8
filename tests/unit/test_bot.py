"""The words of the domain: what makes sense, and what is told when it does not."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, strategies as st

from swarmcg.bot import (
    GRACE_INTERVAL,
    Bandwidth,
    Config,
    ExitReport,
    Leftovers,
    Row,
    check_bot_id,
    check_grace,
)
from swarmcg.errors import ConfigError


def config(**more: Any) -> Config:
    return Config("bot", "/work", **more)


def test_the_defaults_are_those_of_the_interface() -> None:
    made = config()
    assert (made.grace_interval, made.drain, made.env) == (180.0, "file+sigterm", {})
    assert (made.python_version, made.resources, made.on_unenforceable) == ("python3", None, None)
    assert GRACE_INTERVAL == 180.0


def test_paths_may_be_any_path() -> None:
    made = Config("bot", Path("/work"), None, Path("/usr/bin/python3"))
    assert made.work_directory == Path("/work")
    assert made.python_version == Path("/usr/bin/python3")


def test_a_config_does_not_change() -> None:
    with pytest.raises(AttributeError):
        config().bot_id = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    "asked",
    [
        {"egress_bps": 1024},
        {"ingress_bps": 4294967295, "interface": "fifteen-letters"},
        {"egress_bps": 5000, "ingress_bps": 6000},
    ],
)
def test_a_bandwidth_has_a_rate(asked: dict[str, Any]) -> None:
    made = Bandwidth(**asked)
    assert config(bandwidth=made).bandwidth == made
    assert msgspec.json.decode(msgspec.json.encode(made), type=Bandwidth) == made


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"interface": "eth0"},
        {"egress_bps": 0},
        {"egress_bps": 1023},
        {"ingress_bps": 4294967296},
        {"ingress_bps": -1},
        {"egress_bps": True},
        {"egress_bps": 5000.0},
        {"egress_bps": "5000"},
        {"egress_bps": 5000, "interface": ""},
        {"egress_bps": 5000, "interface": "a/b"},
        {"egress_bps": 5000, "interface": "sixteen-letters!"},
        {"egress_bps": 5000, "interface": 7},
    ],
)
def test_a_bandwidth_that_makes_no_sense_is_an_error(asked: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        Bandwidth(**asked)
    assert caught.value.remedy


def test_a_number_is_no_bandwidth() -> None:
    with pytest.raises(ConfigError, match="Bandwidth"):
        config(bandwidth=5000)


@pytest.mark.parametrize("bot_id", ["a", "ü" * 100, "a b/c\n", "x" * 200, "..", "\x1b[0m"])
def test_any_text_is_an_id(bot_id: str) -> None:
    assert check_bot_id(bot_id) == bot_id


@pytest.mark.parametrize(
    ("bot_id", "told"),
    [
        ("", "empty"),
        ("a\0b", "NUL"),
        ("\udcff", "UTF-8"),
        ("x" * 201, "long"),
        ("ü" * 101, "long"),
        (b"a", "text"),
        (None, "text"),
    ],
)
def test_anything_else_is_no_id(bot_id: Any, told: str) -> None:
    with pytest.raises(ConfigError, match=told) as caught:
        Config(bot_id, "/work")
    assert caught.value.remedy


@given(st.text())
def test_an_id_is_accepted_or_refused_and_nothing_else(text: str) -> None:
    size = len(text.encode(errors="surrogatepass"))
    sound = 0 < size <= 200 and "\0" not in text and not any("\ud800" <= c <= "\udfff" for c in text)
    try:
        assert check_bot_id(text) == text
        assert sound
    except ConfigError:
        assert not sound


@pytest.mark.parametrize("seconds", [0, 0.5, 180, 604800])
def test_a_grace_that_can_be_waited_for(seconds: float) -> None:
    assert check_grace(seconds) == seconds


@pytest.mark.parametrize("seconds", [-1, 604801, float("inf"), float("nan"), "180", True, None])
def test_a_grace_that_cannot(seconds: Any) -> None:
    with pytest.raises(ConfigError):
        config(grace_interval=seconds)


@pytest.mark.parametrize("drain", ["file", "sigterm", "file+sigterm", ["true"], ("a", "b")])
def test_ways_to_drain(drain: Any) -> None:
    assert config(drain=drain).drain == drain


@pytest.mark.parametrize("drain", ["", "sigkill", "sigterm+file", [], [""], [1], None, 7, b"file"])
def test_what_is_no_way_to_drain(drain: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        config(drain=drain)
    assert "sigterm" in (caught.value.cause or "")


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("lenient", ["memory.limit", b"memory.limit", None, 5, [1], {"memory.swap": 1}]),
        ("work_directory", [None, 5, b"/work", "", ["/work"]]),
        ("python_version", [None, 3, b"python3", ""]),
        ("env", [None, 5, "A=1", [("A", "1")], {"A": None}, {1: "A"}]),
        ("work_directory_limit", ["60", None, 60.5, True]),
        ("on_unenforceable", [[], {}, 0, "ignore"]),
        ("bandwidth", [0, "1m", {"egress_bps": 5000}]),
    ],
)
def test_a_field_of_a_wrong_type_is_named_with_its_value(field: str, values: list[Any]) -> None:
    for value in values:
        fields: dict[str, Any] = {"work_directory": "/work", field: value}
        with pytest.raises(ConfigError, match=field) as error:
            Config("bot", **fields)
        first, *rest = str(error.value).splitlines()
        assert rest, "no word of the cure"
        shown = next(iter(value.items())) if field == "env" and isinstance(value, dict) else (value,)
        assert all(repr(part) in first or (part == "" and "is empty" in first) for part in shown)


@pytest.mark.parametrize("bot_id", ["\udcff", "a\0b", "x" * 201])
def test_the_value_of_an_error_is_quoted_once(bot_id: str) -> None:
    with pytest.raises(ConfigError) as error:
        check_bot_id(bot_id)
    assert "(value '" in str(error.value)
    assert '"' not in str(error.value)


@pytest.mark.parametrize("names", [{"memory.swap"}, ["memory.swap"], ("memory.swap",), frozenset()])
def test_lenient_may_be_any_plain_collection_of_names(names: Any) -> None:
    assert set(config(lenient=names).lenient) == set(names)


@pytest.mark.parametrize(("field", "value"), [("drain", None), ("drain", [1]), ("grace_interval", None)])
def test_the_value_of_a_wrong_type_is_told_whatever_it_is(field: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=field[:5]) as error:
        config(**{field: value})
    assert repr(value) in str(error.value).splitlines()[0]


@pytest.mark.parametrize("policy", ["ignore", "", True])
def test_an_unknown_policy(policy: Any) -> None:
    with pytest.raises(ConfigError):
        config(on_unenforceable=policy)


@pytest.mark.parametrize("env", [{"": "x"}, {"a=b": "x"}, {"a": "\0"}, {"a\0": "x"}, {"a": 1}, {1: "a"}])
def test_a_variable_that_cannot_be_set(env: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        config(env=env)
    assert caught.value.path == "env"


def full() -> ExitReport:
    row = Row(field="memory.limit", file="memory.max", value="1", why="w", enforceable=False, remedy="r")
    return ExitReport(
        bot_id="b\n\x1b",
        incarnation="0" * 16,
        reason="exited",
        exit_code=0,
        leftovers=Leftovers(count=1, names=("sh",)),
        limits={"memory.max": "1"},
        unenforced=(row,),
    )


def test_a_report_survives_json() -> None:
    assert ExitReport.from_json(full().to_json()) == full()
    assert b"\n" not in full().to_json()


def test_unknown_is_null_and_never_zero() -> None:
    bare = msgspec.json.decode(ExitReport(bot_id="b", incarnation="i", reason="unobserved").to_json())
    for name in (
        "exit_code",
        "signal",
        "started_at",
        "duration_s",
        "memory_peak_bytes",
        "swap_peak_bytes",
        "pids_peak",
        "oom_kills",
    ):
        assert bare[name] is None
    assert set(bare["cpu"].values()) == set(bare["io"].values()) == {None}
    assert {value for stall in bare["pressure"].values() for value in stall.values()} == {None}


def test_the_report_has_the_fields_of_the_interface() -> None:
    bare = msgspec.json.decode(full().to_json())
    assert set(bare) == {
        "schema_version", "bot_id", "incarnation", "reason", "reason_evidence", "exit_code", "signal", "started_at",
        "duration_s", "cpu", "memory_peak_bytes", "swap_peak_bytes", "io", "pids_peak", "oom_kills", "pressure",
        "leftovers", "limits", "unenforced",
    }  # fmt: skip
    assert set(bare["cpu"]) == {"user_s", "system_s", "throttled_s"}
    assert set(bare["io"]) == {"read_bytes", "write_bytes", "read_ops", "write_ops"}
    assert set(bare["pressure"]) == {"cpu", "memory", "io"}
    assert set(bare["unenforced"][0]) == {"field", "file", "value", "why", "enforceable", "remedy"}
    assert bare["schema_version"] == 1
