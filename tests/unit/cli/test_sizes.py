import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, strategies as st

from swarmcg.cli import sizes
from swarmcg.cli.parser import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("0", 0),
        ("512", 512),
        ("512b", 512),
        ("64k", 64 << 10),
        ("512m", 512 << 20),
        ("512M", 512 << 20),
        ("512mb", 512 << 20),
        ("512MiB", 512 << 20),
        ("1.5g", 3 << 29),
        ("1 GB", 1 << 30),
        ("2t", 2 << 40),
        ("1p", 1 << 50),
        ("0.3k", 307),
    ],
)
def test_sizes_are_read_as_docker_reads_them(text: str, count: int) -> None:
    assert sizes.memory("-m", text) == count


@pytest.mark.parametrize(
    "text", ["", "x", "-1", "1x", "1bb", "1ib", "1..5", ".5g", "1e3", "\u0661", "1g ", "9" * 99, "1\n"]
)
def test_what_is_no_size_is_an_error_that_names_flag_value_and_cure(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        sizes.memory("--memory", text)
    assert caught.value.what.startswith("--memory")
    assert caught.value.value == text
    assert caught.value.remedy


@given(st.integers(0, 2**40), st.sampled_from("kmgtp"))
def test_whole_sizes_are_exact(count: int, unit: str) -> None:
    assert sizes.memory("-m", f"{count}{unit}") == count * 1024 ** ("kmgtp".index(unit) + 1)


@given(st.text())
def test_any_text_is_a_size_or_one_error(text: str) -> None:
    with contextlib.suppress(UsageError):
        assert sizes.memory("-m", text) >= 0


@pytest.mark.parametrize(
    ("text", "bytes_a_second"),
    [
        ("8bit", 1),
        ("1bit", 1),
        ("10mbit", 1_250_000),
        ("10Mbit/s", 1_250_000),
        ("1.5 gbits", 187_500_000),
        ("64kibit", 8192),
        ("1tbitps", 125_000_000_000),
    ],
)
def test_a_rate_in_bits_is_answered_with_the_bytes_to_give(text: str, bytes_a_second: int) -> None:
    with pytest.raises(UsageError) as caught:
        sizes.rate("--egress-bps", text)
    assert caught.value.remedy == f"Give {bytes_a_second} for {text}."
    assert "bytes a second" in caught.value.reason


@pytest.mark.parametrize("text", ["10mb/s", "10mbps", "x", "1e9bit", "9" * 41 + "bit", "bit", "-1"])
def test_what_is_no_rate_is_answered_with_how_to_write_one(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        sizes.rate("--egress-bps", text)
    assert "Give bytes a second: 1250000, 512k, 10m." in (caught.value.remedy or "")


def test_only_where_it_is_allowed_minus_one_or_max_is_no_limit() -> None:
    for text in ("-1", "max"):
        assert sizes.memory_or_unlimited("--memory-swap", text) == -1
        assert sizes.whole_or_unlimited("--pids-limit", text) == -1
        assert sizes.quota("--cpu-quota", text) == -1
        assert sizes.cpus("--cpus", text, 100_000) == -1
        with pytest.raises(UsageError):
            sizes.memory("--memory-reservation", text)
    with pytest.raises(UsageError):
        sizes.memory_or_unlimited("--memory-swap", "-2")


@pytest.mark.parametrize("text", ["-5", "x", "101%"])
def test_only_where_it_is_allowed_the_cure_names_how_to_write_no_limit(text: str) -> None:
    readers: tuple[tuple[Callable[[str, str], int], bool], ...] = (
        (sizes.memory_or_unlimited, True),
        (sizes.memory, False),
        (sizes.rate, False),
        (lambda flag, text: sizes.whole_or_unlimited(flag, f"{text}!"), True),
        (sizes.whole, False),
        (lambda flag, text: sizes.quota(flag, f"{text}ms!"), True),
        (sizes.microseconds, False),
        (lambda flag, text: sizes.cpus(flag, text, 100_000), True),
    )
    for read, allowed in readers:
        if read is sizes.whole and text == "-5":
            continue  # it is one
        with pytest.raises(UsageError) as caught:
            read("--flag", text)
        remedy = caught.value.remedy or ""
        assert remedy.endswith(" -1 or max: without limit.") is allowed
        assert ("max" in remedy) is allowed


@pytest.mark.parametrize(
    ("text", "size"), [("25%", 250), ("100%", 1000), ("0.1%", 1), ("12.55 %", 125), ("512", 512)]
)
def test_memory_may_be_a_part_of_the_host_s(monkeypatch: pytest.MonkeyPatch, text: str, size: int) -> None:
    monkeypatch.setattr(sizes, "host_memory", lambda: 1000)
    assert sizes.memory("-m", text) == size


def test_the_host_s_memory_is_what_the_kernel_says() -> None:
    lines = Path("/proc/meminfo").read_text().splitlines()
    total = next(line.split()[1] for line in lines if line.startswith("MemTotal"))
    assert sizes.memory("-m", "100%") == int(total) * 1024


@pytest.mark.parametrize("text", ["0%", "101%", "-5%", "%", "1.%", "25%%", "x%"])
def test_what_is_no_part_of_the_host_is_an_error(text: str) -> None:
    with pytest.raises(UsageError, match="-m"):
        sizes.memory("-m", text)


def test_a_percentage_of_what_nobody_can_say_is_an_error() -> None:
    with pytest.raises(UsageError, match="one of a processor or of the whole host"):
        sizes.cpus("--cpus", "50%", 100_000)
    with pytest.raises(UsageError, match="no percentage is possible here"):
        sizes.rate("--device-read-bps", "50%")


@pytest.mark.parametrize(
    ("text", "count"), [("50000", 50_000), ("50ms", 50_000), ("0.5ms", 500), ("1s", 1_000_000), ("7us", 7)]
)
def test_times_of_the_scheduler(text: str, count: int) -> None:
    assert sizes.microseconds("--cpu-period", text) == sizes.quota("--cpu-quota", text) == count


@pytest.mark.parametrize("text", ["", "1m", "0.5us", "1.5", "x", "-5ms", "max"])
def test_what_is_no_time_of_the_scheduler_is_an_error(text: str) -> None:
    with pytest.raises(UsageError, match="microseconds"):
        sizes.microseconds("--cpu-period", text)


@pytest.mark.parametrize(
    ("text", "seconds"), [("0", 0), ("180", 180), ("0.5", 0.5), ("90s", 90), ("3m", 180), ("1h", 3600)]
)
def test_times(text: str, seconds: float) -> None:
    assert sizes.grace("--grace", text) == seconds


@pytest.mark.parametrize("text", ["", "-1", "3x", "8000h", "1m30s", "inf", "nan"])
def test_what_is_no_time_is_an_error(text: str) -> None:
    with pytest.raises(UsageError, match="--grace"):
        sizes.grace("--grace", text)


@pytest.mark.parametrize(
    ("text", "quota"), [("1.5", 150_000), ("0.01", 1000), ("4", 400_000), (".5", 50_000), ("0", 0)]
)
def test_processors_become_a_quota(text: str, quota: int) -> None:
    assert sizes.cpus("--cpus", text, 100_000) == quota


@pytest.mark.parametrize("text", ["0.001", "-2", "x", "1,5"])
def test_what_is_no_number_of_processors_is_an_error(text: str) -> None:
    with pytest.raises(UsageError, match="--cpus"):
        sizes.cpus("--cpus", text, 100_000)


def test_numbers() -> None:
    assert sizes.whole("-n", "-1") == -1
    for text in ("1.5", "", "x", "1" * 99):
        with pytest.raises(UsageError):
            sizes.whole("-n", text)
