"""The product in a cgroup that systemd delegated: limits, evidence, and the whole way through the command."""

from pathlib import Path

from tests.host.command import Command

EAT = "bytearray(b'x') * (64 << 20)"


def test_a_command_over_its_own_limit_is_killed_and_reported(home: Path, tmp_path: Path) -> None:
    command = Command(home, tmp_path)
    limits = ("-m", "24m", "--memory-swap", "24m", "--cpus", "1", "--pids-limit", "10")
    done = command("run", *limits, "--", "/usr/bin/python3", "-I", "-S", "-c", EAT)
    assert (done.returncode, done.stdout) == (137, "")
    assert done.stderr == "swarmcg: memory limit 25165824: killed for want of memory (oom-own-limit)\n"
    report = command.reports()[0]
    assert (report.reason, report.reason_evidence) == ("oom-own-limit", "kmsg")
    assert report.limits["memory.max"] == str(24 << 20)
    assert command.slices() == []
