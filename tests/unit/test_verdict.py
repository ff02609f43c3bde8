"""Which reason comes first."""

import itertools

import pytest

from swarmcg.bot import Evidence, Reason
from swarmcg.verdict import End, reason

OOM: tuple[Reason, Evidence] = ("oom-ancestor", "kmsg")


@pytest.mark.parametrize(
    ("end", "told"),
    [
        (End(started=False, observed=False), ("start-interrupted", "none")),
        (End(started=True, observed=False), ("unobserved", "none")),
        (End(started=True, observed=False, terminated=True), ("unobserved", "none")),
        (End(started=True, observed=True, signal=9, oom=OOM), OOM),
        (End(started=True, observed=True, signal=9, oom=OOM, terminated=True), OOM),
        (
            End(started=True, observed=True, signal=9, terminated=True, grace_over=True),
            ("killed-after-grace", "none"),
        ),
        (End(started=True, observed=True, signal=15, terminated=True), ("terminated", "none")),
        (End(started=True, observed=True, terminated=True), ("terminated", "none")),
        (End(started=True, observed=True, signal=9), ("signaled", "none")),
        (End(started=True, observed=True), ("exited", "none")),
    ],
)
def test_the_first_reason_that_applies(end: End, told: tuple[Reason, Evidence]) -> None:
    assert reason(end) == told


def test_evidence_is_given_for_out_of_memory_alone() -> None:
    flags = itertools.product([True, False], repeat=4)
    for (started, observed, terminated, over), signal, oom in itertools.product(
        flags, [None, 9], [None, OOM]
    ):
        why, evidence = reason(
            End(
                started=started,
                observed=observed,
                signal=signal,
                terminated=terminated,
                grace_over=over,
                oom=oom,
            )
        )
        assert (evidence != "none") == why.startswith("oom")
