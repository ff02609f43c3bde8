"""A slice's files as a plain model: what the kernel does with a write, what an update must lead to, and updates
of every kind, for tests that compare swarmcg with it.
"""

import errno
from typing import Any, Final

from hypothesis import strategies as st

PAGE: Final = 4096
FRESH: Final = {
    "cpu.weight": "100",
    "cpu.max": "max 100000",
    "cpu.max.burst": "0",
    "cpu.idle": "0",
    "memory.max": "max",
    "memory.swap.max": "max",
    "memory.high": "max",
    "memory.low": "0",
    "memory.min": "0",
    "pids.max": "max",
}
WEIGHTS: Final = {2: 1, 1024: 100, 2000: 170, 10240: 639, 262144: 10000}
"""OCI shares and their weights, from the table of the specification's implementers."""


class Kernel:
    """Files that refuse what Linux 6.1 refuses, and show what it shows."""

    def __init__(self, files: dict[str, str] | None = None) -> None:
        self.files: Final = dict(FRESH if files is None else files)

    def write(self, file: str, line: str) -> None:
        if file == "cpu.max":
            self._bandwidth(line)
        elif file == "cpu.max.burst":
            self._check(int(line) <= number(self.files["cpu.max"]))
            self.files[file] = line
        elif file == "cpu.idle":
            if line != self.files[file]:  # sched_group_set_idle
                self.files["cpu.weight"] = "0" if line == "1" else "100"
            self.files[file] = line
        elif file == "cpu.weight":
            self._check(self.files["cpu.idle"] == "0" and 1 <= int(line) <= 10000)
            self.files[file] = line
        elif file == "pids.max":
            self._check(line == "max" or 0 <= int(line) <= 4194304)
            self.files[file] = line
        else:
            self.files[file] = line if line == "max" else str(int(line) // PAGE * PAGE)

    def _bandwidth(self, line: str) -> None:
        quota, _, period = line.partition(" ")
        period = period or self.files["cpu.max"].split()[1]
        self._check(quota == "max" or int(quota) >= 1000)
        self._check(1000 <= int(period) <= 1000000)
        self._check(quota == "max" or int(self.files["cpu.max.burst"]) <= int(quota))
        self.files["cpu.max"] = f"{quota} {period}"

    @staticmethod
    def _check(holds: bool) -> None:
        if not holds:
            raise OSError(errno.EINVAL, "Invalid argument")


def number(text: str) -> float:
    first = text.partition(" ")[0]
    return float("inf") if first == "max" else int(first)


def outcome(before: dict[str, str], asked: dict[str, Any], weight: str) -> dict[str, str] | None:
    """What the files must show after an update; None for one that must change nothing.

    ``weight`` is the weight that was asked for last, which an idle slice has forgotten.
    """
    cpu = asked.get("cpu", {})
    after = before | _cpu(before, cpu, weight)
    memory = _memory(before, asked.get("memory", {}))
    if memory is None or NONSENSE in asked.get("unified", {}).values():
        return None
    after |= memory
    if "pids" in asked:
        limit = asked["pids"]["limit"]
        after["pids.max"] = "max" if limit < 0 else str(limit or 1)
    for file, value in asked.get("unified", {}).items():
        after[file] = value if value == "max" else paged(int(value))
    refused = number(after["cpu.max.burst"]) > number(after["cpu.max"])
    refused |= after["cpu.idle"] == "1" and "shares" in cpu
    return None if refused else after


def _cpu(before: dict[str, str], cpu: dict[str, int], weight: str) -> dict[str, str]:
    after = {"cpu.idle": str(cpu.get("idle", before["cpu.idle"]))}
    after["cpu.weight"] = "0" if after["cpu.idle"] == "1" else weight
    if "shares" in cpu:
        after["cpu.weight"] = str(WEIGHTS[cpu["shares"]])
    if {"quota", "period"} & cpu.keys():
        quota, period = before["cpu.max"].split()
        if "quota" in cpu:
            quota = str(cpu["quota"]) if cpu["quota"] > 0 else "max"
        after["cpu.max"] = f"{quota} {cpu.get('period', period)}"
    if "burst" in cpu:
        after["cpu.max.burst"] = str(cpu["burst"])
    return after


def _memory(before: dict[str, str], memory: dict[str, int]) -> dict[str, str] | None:
    after = {}
    if "limit" in memory:
        after["memory.max"] = paged(memory["limit"])
    if "reservation" in memory:
        after["memory.low"] = paged(memory["reservation"])
    if memory.get("swap") == -1 or (memory.get("limit") == -1 and "swap" not in memory):
        after["memory.swap.max"] = "max"
    elif "swap" in memory:
        limit = memory.get("limit", number(before["memory.max"]))
        if not 0 < limit <= memory["swap"]:
            return None
        after["memory.swap.max"] = paged(memory["swap"] - int(limit))
    return after


def paged(size: int) -> str:
    return "max" if size == -1 else str(size // PAGE * PAGE)


NONSENSE: Final = "nonsense"
"""A value that only the kernel can refuse, in the midst of an update."""

_MB: Final = 1 << 20
_SIZES: Final = st.sampled_from([16 * _MB, 24 * _MB + 1, 32 * _MB, 64 * _MB, 100 * _MB + 4095])


def _some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=fields)


_BANDWIDTH: Final = {
    "quota": st.sampled_from([-1, 5000, 50000]),
    "burst": st.sampled_from([0, 1000, 20000]),
}
_LIMITS: Final = {
    "limit": st.sampled_from([-1]) | _SIZES,
    "swap": st.sampled_from([-1]) | _SIZES | _SIZES.map(lambda size: size + 64 * _MB),
}
_OFTEN_SENSE: Final = ["max", "0", str(4 * _MB + 1), str(16 * _MB), str(32 * _MB), NONSENSE]
_ANY: Final = _some(
    cpu=_some(
        **_BANDWIDTH,
        shares=st.sampled_from(sorted(WEIGHTS)),
        period=st.sampled_from([50000, 100000]),
        idle=st.sampled_from([0, 1]),
    ),
    memory=_some(**_LIMITS, reservation=_SIZES),
    pids=st.fixed_dictionaries({"limit": st.sampled_from([-1, 0, 1, 20, 500])}),
    unified=_some(
        **{"memory.high": st.sampled_from(_OFTEN_SENSE), "memory.min": st.sampled_from(_OFTEN_SENSE)}
    ),
)
_PAIRS: Final = st.fixed_dictionaries(
    {"cpu": st.fixed_dictionaries(_BANDWIDTH), "memory": st.fixed_dictionaries(_LIMITS)}
)
UPDATES: Final = _ANY | _PAIRS
"""OCI resources as plain values: most make sense, some do not, some only the kernel refuses; pairs whose order
matters are often together.
"""
