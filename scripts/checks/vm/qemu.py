"""One start of a machine: QEMU with the disks that are handed in, until the machine powers itself off."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import IO, Final

from checks import debian
from checks.vm.image import Image
from checks.vm.kernel import Kernel

PROCESSORS: Final = 2
MEMORY_MB: Final = 2048
CPUINFO: Final = Path("/proc/cpuinfo")
KVM: Final = Path("/dev/kvm")
# A plain old processor is the fastest to emulate, and what follows spares it work that only real ones need: measured, a
# boot of 10 to 14 s instead of 15 to 20.
KERNEL_OPTIONS: Final = (
    *(
        "root=/dev/nvme0n1",
        "rw",
        "console=ttyS0",
        "quiet",
        "loglevel=3",
        "panic=-1",
        "psi=1",
        "net.ifnames=0",
    ),
    *("mitigations=off", "audit=0", "nowatchdog", "rcupdate.rcu_expedited=1", "preempt=none"),
    *("tsc=reliable", "no_timer_check", "systemd.show_status=0"),
)
# The parent death signal ends QEMU with this script, even when that is killed; should it have died before the signal
# was asked for, then our parent is another already.
BOUND_TO_US: Final = ("setpriv", "--pdeathsig", "KILL", "sh", "-c", '[ "$PPID" = "$0" ] && exec "$@"')


def has_kvm() -> bool:
    """Whether this processor really runs guests: /dev/kvm can be opened on hosts that are guests without it, too."""
    flags = re.search(r"^flags\s*:.*\b(vmx|svm)\b", CPUINFO.read_text(), re.MULTILINE)
    return flags is not None and os.access(KVM, os.W_OK)


def boot(
    image: Image,
    kernel: Kernel,
    disks: dict[str, IO[bytes]],
    console: IO[bytes] | None,
    *,
    options: tuple[str, ...],
    time_limit: float,
) -> None:
    """Start the machine and return when it is off, or was ended after its time limit.

    Each disk is an open file, which the guest sees as a virtual disk with the name for its serial number. What it
    writes to its root disk is lost. What it says goes to stdout and into the console's file; without such a file its
    console is this terminal.
    """
    if not debian.provide("qemu-system-x86_64", "qemu-system-x86"):
        raise debian.UnavailableError("qemu-system-x86_64 is missing; install qemu-system-x86")
    command = [*BOUND_TO_US, str(os.getpid()), *_command(image, kernel, disks, options)]
    machine = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL if console else None,
        stdout=subprocess.PIPE if console else None,
        pass_fds=[disk.fileno() for disk in disks.values()],
    )
    relay = _relay(machine.stdout, console) if console else None
    try:
        machine.wait(time_limit)
    except subprocess.TimeoutExpired:
        print(f"scripts/vm: the machine was ended after {time_limit:.0f} s", file=sys.stderr)
    finally:
        machine.kill()
        machine.wait()
        if machine.stdout is not None:
            machine.stdout.close()
        if relay is not None:
            relay.wait()


def _relay(said: IO[bytes] | None, console: IO[bytes]) -> "subprocess.Popen[bytes]":
    """Hands on what the machine says, without the carriage returns of its terminal, and writes it down."""
    script = ["-e", r"s/\r//g", "-e", f"w /dev/fd/{console.fileno()}"]
    return subprocess.Popen(["sed", "-u", *script], stdin=said, pass_fds=[console.fileno()])


def _command(
    image: Image, kernel: Kernel, disks: dict[str, IO[bytes]], options: tuple[str, ...]
) -> list[str]:
    processor = ("kvm", "host") if has_kvm() else ("tcg,thread=multi,tb-size=512", "Nehalem")
    drives = [word for name, disk in disks.items() for word in _drive(name, disk)]
    root = f"if=none,id=root,file={image.disk},format=raw,cache=unsafe,snapshot=on"
    return [
        *("qemu-system-x86_64", "-name", "swarmcg-vm", "-machine", "q35,usb=off"),
        *("-accel", processor[0], "-cpu", processor[1], "-smp", str(PROCESSORS), "-m", str(MEMORY_MB)),
        *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-nic", "none"),
        *("-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"),
        *("-drive", root, "-device", "nvme,drive=root,serial=root", *drives, "-device", "virtio-rng-pci"),
        *("-kernel", str(kernel.file), *(("-initrd", str(kernel.initrd)) if kernel.initrd else ())),
        *("-append", " ".join((*KERNEL_OPTIONS, *options))),
    ]


def _drive(name: str, disk: IO[bytes]) -> list[str]:
    """The file may have no name, so QEMU opens it again through the descriptor that it inherits."""
    backing = f"if=none,id={name},file=/proc/self/fd/{disk.fileno()},format=raw,cache=unsafe"
    return ["-drive", backing, "-device", f"virtio-blk-pci,drive={name},serial={name}"]
