"""What the kernel shows for what was written: rounding, words and lines, and everything else that is a mismatch."""

import pytest
from hypothesis import given, strategies as st

from swarmcg.resources import settled

PAGE = 4096


@pytest.mark.parametrize(
    ("file", "written", "read"),
    [
        ("memory.max", "33554433", "33554432\n"),
        ("memory.max", "4095", "0\n"),
        ("memory.max", "max", "max\n"),
        ("memory.max", str(2**63 - 1), "max\n"),
        ("memory.max", str(2**64 - 1), "max\n"),
        ("memory.high", "64M", "67108864\n"),
        ("memory.low", "1g", "1073741824\n"),
        ("memory.swap.max", "0", "0\n"),
        ("memory.oom.group", "1", "1\n"),
        ("hugetlb.2MB.max", "2097153", "2097152\n"),
        ("hugetlb.2MB.rsvd.max", "1", "0\n"),
        ("hugetlb.1GB.max", str(2**63 - 1), "max\n"),
        ("hugetlb.2MB.max", "max", "max\n"),
        ("cpu.max", "max", "max 100000\n"),
        ("cpu.max", "5000", "5000 20000\n"),
        ("cpu.max", "5000  50000", "5000 50000\n"),
        ("cpu.weight", "0100", "64\n"),
        ("cpu.weight", "42", "42\n"),
        ("cpu.idle", "1", "1\n"),
        ("pids.max", "0x10", "16\n"),
        ("pids.max", "max", "max\n"),
        ("cpuset.cpus", "0,1,2,7", "0-2,7\n"),
        ("cpuset.cpus", "2-3,0-1", "0-3\n"),
        ("cpuset.cpus", "0-7,2", "0-7\n"),
        ("cpuset.mems", "0", "0\n"),
        (
            "io.max",
            "8:0 rbps=1048576 wiops=max",
            "8:16 rbps=1\n8:0 rbps=1048576 wbps=max riops=max wiops=max\n",
        ),
        ("io.max", "8:0 rbps=max wbps=max", ""),
        ("io.max", "8:0 riops=max", "8:0 rbps=5 wbps=max riops=max wiops=max\n"),
        ("io.max", f"8:0 riops={2**32}", ""),
        ("io.latency", "8:0 target=75", "8:0 target=75\n"),
        (
            "rdma.max",
            "mlx4_0 hca_handle=2",
            "mlx4_0 hca_handle=2 hca_object=max\nocrdma1 hca_handle=9 hca_object=max\n",
        ),
        ("rdma.max", f"mlx4_0 hca_object={2**31 - 1}", "mlx4_0 hca_handle=max hca_object=max\n"),
        ("io.weight", "4950", "default 4950\n8:0 10\n"),
        ("io.weight", "default 4950", "default 4950\n"),
        ("io.weight", "8:0 200", "default 100\n8:0 200\n"),
        ("io.weight", "8:0 default", "default 100\n"),
        ("io.bfq.weight", "500", "500\n"),
        ("io.bfq.weight", "500", "default 500\n"),
        ("misc.max", "res_a 3", "res_a 3\nres_b max\n"),
        ("cpuset.cpus.partition", "member", "member\n"),
    ],
)
def test_settled(file: str, written: str, read: str) -> None:
    assert settled(file, written, read)


@pytest.mark.parametrize(
    ("file", "written", "read"),
    [
        ("memory.max", "33554433", "33554433\n"),
        ("memory.max", "8192", "max\n"),
        ("memory.max", "max", "8192\n"),
        ("memory.max", "", "max\n"),
        ("memory.max", "-1", "max\n"),
        ("memory.max", "lots", "lots\n"),
        ("memory.swap.max", "4096", "0\n"),
        ("hugetlb.2MB.max", "2097153", "2093056\n"),
        ("cpu.max", "5000 50000", "5000 100000\n"),
        ("cpu.max", "5000", "max 100000\n"),
        ("cpu.max", "5000 50000", "5000\n"),
        ("cpu.weight", "42", "0\n"),
        ("cpuset.cpus", "0-3", "0-2\n"),
        ("cpuset.cpus", "0", "\n"),
        ("cpuset.cpus", "0", "what\n"),
        ("io.max", "8:0 rbps=1", ""),
        ("io.max", "8:0 rbps=1", "8:16 rbps=1 wbps=max riops=max wiops=max\n"),
        ("io.max", "8:0 rbps=max", "8:0 rbps=5 wbps=max riops=max wiops=max\n"),
        ("rdma.max", "mlx4_0 hca_handle=2", "mlx4_0 hca_handle=max hca_object=max\n"),
        ("io.weight", "4950", "default 100\n8:0 4950\n"),
        ("io.weight", "8:0 200", "default 200\n"),
        ("io.weight", "8:0 default", "default 100\n8:0 200\n"),
        ("cpuset.cpus.partition", "root", "root invalid (Cpu list in cpuset.cpus not exclusive)\n"),
    ],
)
def test_taken_differently(file: str, written: str, read: str) -> None:
    assert not settled(file, written, read)


def test_the_page_size_is_the_hosts() -> None:
    assert settled("memory.max", "100000", "65536\n", page_size=65536)
    assert not settled("memory.max", "100000", "65536\n", page_size=PAGE)


@given(st.integers(0, 2**64 - 1), st.sampled_from([4096, 16384, 65536]))
def test_sizes_are_rounded_as_the_page_counters_do(size: int, page: int) -> None:
    pages = min(size // page, (2**63 - 1) // page)
    shown = "max" if pages == (2**63 - 1) // page else str(pages * page)
    assert settled("memory.max", str(size), shown + "\n", page_size=page)


@given(
    st.text(),
    st.text(),
    st.sampled_from(["io.max", "io.weight", "cpu.max", "cpuset.cpus", "memory.max", "x.y"]),
)
def test_no_text_raises(written: str, read: str, file: str) -> None:
    assert settled(file, written, read) in {True, False}
