"""``blockIO`` of the OCI resources: the controller io."""

from collections.abc import Iterator, Mapping
from typing import Final

from swarmcg.bot import Row
from swarmcg.resources.abilities import Abilities, Disk
from swarmcg.resources.rows import impossible, nonsense, satisfied, written
from swarmcg.resources.spec import BlockIO, LinuxResources, ThrottleDevice, WeightDevice

__all__ = ["io_weight", "plan"]

_LOWEST, _HIGHEST = 10, 1000
_MOST_MAJOR, _MOST_MINOR = 2**12 - 1, 2**20 - 1  # MINORBITS is 20 in a 32-bit dev_t
_SWITCH_ON: Final = "Switch BFQ on: echo bfq > /sys/block/{name}/queue/scheduler (after modprobe bfq)."
_NO_LEAF: Final = "cgroup v2 has no leaf weight: processes live in leaves only"
_SUPERSEDED: Final = "{last} names the same disk and kind, and the last one holds"
_NO_WEIGHT: Final = "0 means that nothing is asked for"


def plan(resources: LinuxResources, abilities: Abilities) -> Iterator[Row]:
    """The rows of ``blockIO``."""
    io = resources.block_io or BlockIO()
    if io.weight is not None:
        yield from _weight(io.weight, abilities)
    yield from _leaf_weight("blockIO.leafWeight", io.leaf_weight)
    yield from _weight_devices(io.weight_device or (), abilities)
    yield from _throttles(io, abilities)


def io_weight(weight: int) -> int:
    """The weight of ``io.weight`` (1 to 10000) for one of OCI (10 to 1000)."""
    return 1 + (weight - _LOWEST) * 9999 // (_HIGHEST - _LOWEST)


def _check_weight(field: str, weight: int) -> None:
    if weight and not _LOWEST <= weight <= _HIGHEST:
        nonsense(
            field, weight, "a weight goes from 10 to 1000, and 0 asks for none", "Give one in this range."
        )


def _weight(weight: int, abilities: Abilities) -> Iterator[Row]:
    field = "blockIO.weight"
    _check_weight(field, weight)
    files = _weight_files(abilities)
    if weight == 0:
        yield satisfied(field, files[0] if files else "io.weight", _NO_WEIGHT)
    elif not files:
        whole = (
            disk.name
            for number, disk in (abilities.disks or {}).items()
            if number == disk.whole and disk.may_heed_weights
        )
        name = min(whole, default="DISK")
        why = "no disk of this host heeds a weight: none has BFQ as its scheduler or io.cost switched on"
        yield impossible(field, why, _SWITCH_ON.format(name=name), file="io.weight", value=io_weight(weight))
    for file in files if weight else ():
        yield _weighted(field, file, weight, "")


def _weight_files(abilities: Abilities) -> tuple[str, ...]:
    """The files that have an effect: BFQ's, io.cost's, or both when the host has disks of both kinds."""
    if abilities.disks is None:
        bfq = abilities.files is not None and "io.bfq.weight" in abilities.files
        return ("io.bfq.weight",) if bfq else ("io.weight",)
    heeding = {_heeded(disk) for disk in abilities.disks.values()}
    return tuple(file for file in ("io.bfq.weight", "io.weight") if file in heeding)


def _heeded(disk: Disk) -> str | None:
    """The file by which this disk's time is shared; None when nothing shares it."""
    if disk.scheduler == "bfq":
        return "io.bfq.weight"
    return "io.weight" if disk.iocost else None


def _weighted(field: str, file: str, weight: int, device: str, note: str = "") -> Row:
    if file == "io.bfq.weight":
        return written(field, file, f"{device}{weight}", "BFQ shares by the weight as given" + note)
    why = "a weight of 10 to 1000 as one of 1 to 10000; heeded where io.cost is on" + note
    return written(field, file, f"{device}{io_weight(weight)}", why)


def _leaf_weight(field: str, weight: int | None) -> Iterator[Row]:
    if weight is None:
        return
    _check_weight(field, weight)
    if weight == 0:
        yield satisfied(field, None, _NO_WEIGHT)
    else:
        yield impossible(field, _NO_LEAF, f"Leave {field} out; blockIO.weight covers it.", value=weight)


def _weight_devices(devices: tuple[WeightDevice, ...], abilities: Abilities) -> Iterator[Row]:
    """As for throttles, the last entry for a disk holds."""
    rows = [
        row
        for i, device in enumerate(devices)
        for row in _weight_device(f"blockIO.weightDevice[{i}]", device, abilities)
    ]
    holding = {_target(row): row.field for row in rows if row.file and row.value}
    for row in rows:
        last = holding.get(_target(row), row.field)
        yield row if last == row.field else satisfied(row.field, row.file, _SUPERSEDED.format(last=last))


def _target(row: Row) -> tuple[str | None, str]:
    """The file and the device of a line."""
    return row.file, (row.value or "").partition(" ")[0]


def _weight_device(field: str, device: WeightDevice, abilities: Abilities) -> Iterator[Row]:
    asked = _number(field, device)
    if device.weight is None and device.leaf_weight is None:
        nonsense(field, asked, "it has neither weight nor leafWeight", "Give a weight.")
    if device.weight is not None:
        _check_weight(f"{field}.weight", device.weight)
        yield from _device_weights(f"{field}.weight", asked, device.weight, abilities)
    yield from _leaf_weight(f"{field}.leafWeight", device.leaf_weight)


def _device_weights(field: str, asked: str, weight: int, abilities: Abilities) -> Iterator[Row]:
    """One row, or one for each disk that carries a mapped device: that one has no scheduler to share its time."""
    disk = None if abilities.disks is None else abilities.disks.get(asked)
    if weight == 0:
        yield satisfied(field, "io.weight", _NO_WEIGHT)
    elif abilities.disks is None:
        yield _weighted(field, _weight_files(abilities)[0], weight, f"{asked} ")
    elif disk is None:
        yield _unknown_disk(field, "io.weight", asked, f"{asked} {io_weight(weight)}")
    else:
        for number in disk.below or (disk.whole,):
            whole = abilities.disks.get(number, disk)
            yield _disk_weight(field, number, weight, whole, _weight_note(asked, disk, whole))


def _disk_weight(field: str, number: str, weight: int, whole: Disk, note: str) -> Row:
    file = _heeded(whole)
    if file is None:
        why = f"{whole.name} heeds no weight: neither BFQ nor io.cost is switched on for it{note}"
        value = f"{number} {io_weight(weight)}"
        return impossible(field, why, _SWITCH_ON.format(name=whole.name), file="io.weight", value=value)
    return _weighted(field, file, weight, f"{number} ", note)


def _throttles(io: BlockIO, abilities: Abilities) -> Iterator[Row]:
    """One line a disk, whatever the number of entries; each entry's row shows the whole line."""
    lines: dict[str, dict[str, str]] = {}
    rows: dict[tuple[str, str], tuple[str, str]] = {}
    for field, key, device in _entries(io):
        asked = _number(field, device)
        disk = None if abilities.disks is None else abilities.disks.get(asked)
        if abilities.disks is not None and disk is None:
            yield _unknown_disk(field, "io.max", asked, f"{asked} {key}={device.rate or 'max'}")
            continue
        whole, note = (disk.whole, _note(asked, disk)) if disk else (asked, "")
        if previous := rows.get((whole, key)):
            yield satisfied(previous[0], "io.max", _SUPERSEDED.format(last=field))
        rows[whole, key] = (field, note)
        lines.setdefault(whole, {})[key] = str(device.rate or "max")
    for (whole, _), (field, note) in rows.items():
        yield written(field, "io.max", _line(whole, lines[whole]), "one line a disk; a rate of 0: max" + note)


def _entries(io: BlockIO) -> Iterator[tuple[str, str, ThrottleDevice]]:
    for name, key, devices in (
        ("throttleReadBpsDevice", "rbps", io.throttle_read_bps_device),
        ("throttleWriteBpsDevice", "wbps", io.throttle_write_bps_device),
        ("throttleReadIOPSDevice", "riops", io.throttle_read_iops_device),
        ("throttleWriteIOPSDevice", "wiops", io.throttle_write_iops_device),
    ):
        for i, device in enumerate(devices or ()):
            yield f"blockIO.{name}[{i}]", key, device


def _line(device: str, limits: Mapping[str, str]) -> str:
    keys = (key for key in ("rbps", "wbps", "riops", "wiops") if key in limits)
    return " ".join((device, *(f"{key}={limits[key]}" for key in keys)))


def _note(asked: str, disk: Disk) -> str:
    """What the kernel throttles where another device was named, or where it might be another."""
    note = "" if disk.whole == asked else f"; {asked} is a partition, and the kernel knows whole disks only"
    return f"{note}; {disk.whole} is the {disk.label}, which is throttled by itself" if disk.label else note


def _weight_note(asked: str, disk: Disk, whole: Disk) -> str:
    if not disk.below:
        return _note(asked, disk)
    return f"; {asked} is the {disk.label or disk.name}, which has no scheduler: {whole.name} below it has"


def _number(field: str, device: WeightDevice | ThrottleDevice) -> str:
    for name, number, most in (("major", device.major, _MOST_MAJOR), ("minor", device.minor, _MOST_MINOR)):
        if not 0 <= number <= most:
            nonsense(
                f"{field}.{name}", number, f"it goes from 0 to {most}", "Use the numbers that lsblk shows."
            )
    return f"{device.major}:{device.minor}"


def _unknown_disk(field: str, file: str, asked: str, value: str) -> Row:
    why = f"this host has no disk {asked}, which the kernel answers with ENODEV"
    return impossible(field, why, "Use the MAJ:MIN of a disk that lsblk shows.", file=file, value=value)
