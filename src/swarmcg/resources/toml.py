"""Resources in TOML: OCI's names, with sizes and times as people write them.

cpus = 1.5                    # as quota and period
[memory]
limit = "25%"                 # of the host
swap = "8G"
[[hugepageLimits]]
pageSize = "2MB"
limit = "1G"
"""

import tomllib
from collections.abc import Callable
from typing import Any, Final

from swarmcg.errors import ResourcesError
from swarmcg.resources import reading, sizes
from swarmcg.resources.spec import LinuxResources

__all__ = ["PERIOD", "from_toml"]

PERIOD: Final = 100_000
"""The kernel's default period of a processor quota in microseconds."""

_Reader = Callable[[str], int]


def from_toml(text: str | bytes, total: Callable[[], int]) -> LinuxResources:
    """Reads resources in TOML; ``total`` tells the host's memory in bytes, when a percentage asks for it.

    Where OCI has a number that is a size, a time in microseconds or a count without limit, text stands for
    it as well; 0, also as text, is OCI's. Raises ResourcesError as :meth:`LinuxResources.from_json` does.
    """
    try:
        value: dict[str, Any] = tomllib.loads(text.decode() if isinstance(text, bytes) else text)
    except UnicodeDecodeError as e:
        raise _broken(f"byte {e.start} is not UTF-8") from None
    except (tomllib.TOMLDecodeError, RecursionError) as e:
        raise _broken(str(e)) from None
    _spread_cpus(value)
    for path, read in _readers(total).items():
        _replace(value, path.split("."), path, read)
    return reading.typed(value, LinuxResources)


def _broken(cause: str) -> ResourcesError:
    return ResourcesError("The resources are not valid TOML", cause=cause, remedy="See https://toml.io.")


def _readers(total: Callable[[], int]) -> dict[str, _Reader]:
    """How text is read at which path; ``[]`` stands for every entry of a list."""

    def memory(text: str) -> int:
        return sizes.memory(text, total)

    sizes_of_memory = dict.fromkeys(
        ("memory.limit", "memory.reservation", "memory.swap", "memory.kernel", "memory.kernelTCP"),
        lambda text: sizes.or_unlimited(text, memory),
    )
    rates = dict.fromkeys(
        ("blockIO.throttleReadBpsDevice.[].rate", "blockIO.throttleWriteBpsDevice.[].rate"), sizes.rate
    )
    times = dict.fromkeys(("cpu.period", "cpu.burst"), sizes.microseconds)
    return {
        **sizes_of_memory,
        **rates,
        **times,
        "cpu.quota": _quota,
        "pids.limit": _count,
        "hugepageLimits.[].limit": memory,
    }


def _quota(text: str) -> int:
    return sizes.or_unlimited(text, sizes.microseconds)


def _count(text: str) -> int:
    return sizes.or_unlimited(text, sizes.whole)


def _replace(part: Any, rest: list[str], path: str, read: _Reader) -> None:
    """Puts numbers in place of texts; what has another form is left for the check of types."""
    first, *inner = rest
    if first == "[]":
        for i, item in enumerate(part if isinstance(part, list) else ()):
            _replace(item, inner, path.replace(".[]", f"[{i}]"), read)
    elif isinstance(part, dict) and inner:
        _replace(part.get(first), inner, path, read)
    elif isinstance(part, dict) and isinstance(part.get(first), str):
        part[first] = _number(part[first], path, read)


def _number(text: str, path: str, read: _Reader) -> int:
    try:
        return read(text)
    except sizes.UnreadableError as e:
        raise ResourcesError(
            f"{path} is not valid", path=path, value=text, cause=e.cause, remedy=e.remedy
        ) from None


def _spread_cpus(value: dict[str, Any]) -> None:
    """``cpus``, which OCI does not have, as quota and period."""
    if (count := value.pop("cpus", None)) is None:
        return
    if isinstance(count, bool) or not isinstance(count, int | float | str):
        count = repr(count)
    cpu = value.setdefault("cpu", {})
    for other in ("quota", "period") if isinstance(cpu, dict) else ():
        if other in cpu:
            raise ResourcesError(
                f"cpus and cpu.{other} contradict each other",
                path=f"cpu.{other}",
                value=cpu[other],
                cause="cpus says both quota and period",
                remedy="Give one of them.",
            )
    quota = _number(str(count), "cpus", lambda text: sizes.cpus(text, PERIOD))
    if isinstance(cpu, dict) and quota:
        cpu |= {"quota": quota, "period": PERIOD}
