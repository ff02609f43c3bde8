"""The program lets through what the rate allows, whatever comes when: run by a machine of our own."""

from itertools import accumulate
from typing import Final

import pytest
from hypothesis import given, strategies as st

from swarmcg.resources.policer import BUCKET_NS, assemble
from tests.unit.resources.packet_machine import MAP, Slice

SECOND: Final = 10**9
BOOT: Final = 5 * SECOND
CABLE: Final = 3
RATE: Final = 1_000_000
BUCKET: Final = RATE * BUCKET_NS // SECOND
LARGEST: Final = 65536


def policer(rate: int = RATE) -> Slice:
    return Slice(assemble(rate, CABLE, MAP))


@given(
    rate=st.integers(1024, 2**32),
    gaps=st.lists(st.tuples(st.integers(0, SECOND // 2), st.integers(1, LARGEST)), min_size=1, max_size=60),
)
def test_in_no_span_of_time_more_passes_than_the_rate_the_bucket_and_a_packet(
    rate: int, gaps: list[tuple[int, int]]
) -> None:
    held = policer(rate)
    times = list(accumulate((gap for gap, _ in gaps), initial=BOOT))[1:]
    sizes = [size for _, size in gaps]
    passed = [size if held.passes(now, size, CABLE) else 0 for now, size in zip(times, sizes, strict=True)]
    for i, start in enumerate(times):
        for j in range(i, len(times)):
            # Each packet's time is cut to whole nanoseconds.
            most = rate * (times[j] - start + BUCKET_NS + len(times)) / SECOND + LARGEST
            assert sum(passed[i : j + 1]) <= most


def test_what_keeps_to_the_rate_passes_all_the_time() -> None:
    held = policer()
    assert all(held.passes(BOOT + k * SECOND // 100, RATE // 100, CABLE) for k in range(1000))


def test_after_a_pause_the_bucket_is_full_and_no_fuller() -> None:
    held = policer()
    for start in (BOOT, BOOT + 1000 * SECOND):
        passed = sum(1000 for _ in range(1000) if held.passes(start, 1000, CABLE))
        assert passed == BUCKET


def test_a_packet_larger_than_the_bucket_passes_and_is_paid_for() -> None:
    held = policer(1024)
    assert held.passes(BOOT, LARGEST, CABLE)
    paid = BOOT - BUCKET_NS + LARGEST * SECOND // 1024
    assert not held.passes(paid, 1, CABLE)
    assert held.passes(paid + 1, 1, CABLE)


@pytest.mark.parametrize("rate", [1, 2**31, 2**32, 2**63])
def test_every_rate_can_be_said(rate: int) -> None:
    held = policer(rate)
    assert held.passes(BOOT, 1500, CABLE)
    assert held.used == BOOT - BUCKET_NS + 1500 * SECOND // rate


def test_other_interfaces_are_not_its_business() -> None:
    held = policer()
    assert all(held.passes(BOOT, LARGEST, CABLE + 1) for _ in range(1000))
    assert held.used == 0


@pytest.mark.parametrize("times", range(8))
def test_who_is_slower_than_another_processor_pays_all_the_same(times: int) -> None:
    """It tries anew; after four turns the packet passes without a look, and is paid for."""
    left = times
    step = SECOND // 1000

    def another(held: Slice) -> None:
        nonlocal left
        if left:
            left -= 1
            held.used = max(held.used, held.now - BUCKET_NS) + step

    held = Slice(assemble(RATE, CABLE, MAP), another)
    assert held.passes(BOOT, 1000, CABLE)
    others = (min(times, 5)) * step
    assert held.used == BOOT - BUCKET_NS + others + 1000 * SECOND // RATE
