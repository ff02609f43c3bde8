"""Which data files count is decided by what coverage.py itself writes and reads."""

from pathlib import Path

import coverage
import pytest

from checks import coverage_data


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A file as a measured process leaves it."""
    made = coverage.CoverageData(basename=str(tmp_path / "data.1"))
    made.add_lines({f"/src/{number}.py": range(1, 500) for number in range(50)})
    made.write()
    made.close()
    return tmp_path / "data.1"


def test_a_module_that_nobody_imports_counts_as_one_that_never_ran(tmp_path: Path) -> None:
    (tmp_path / "tree" / "room").mkdir(parents=True)
    module = tmp_path / "tree" / "room" / "module.py"
    module.write_text("if __name__:\n    print()\n")
    coverage_data.name_all(tmp_path / "tree", tmp_path / "everything")
    measured = coverage.Coverage(data_file=str(tmp_path / "everything"), branch=True)
    measured.load()
    assert measured.analysis2(str(module))[3] == [1, 2]


def test_a_file_that_was_written_to_its_end_counts(data: Path) -> None:
    assert coverage_data.whole([data.parent]) == ([data], 0)


@pytest.mark.parametrize("kept", [0, 100, 4096, 8192])
def test_one_that_was_cut_short_does_not(data: Path, kept: int) -> None:
    data.with_name("data.2").write_bytes(data.read_bytes()[:kept])
    assert coverage_data.whole([data.parent]) == ([data], 1)


def test_nor_one_that_is_garbled(data: Path) -> None:
    written = bytearray(data.read_bytes())
    written[4096:] = b"\xa5" * (len(written) - 4096)
    data.write_bytes(written)
    assert coverage_data.whole([data.parent]) == ([], 1)


def test_nor_one_whose_transaction_was_not_finished(data: Path) -> None:
    data.with_name("data.1-journal").write_bytes(b"\0" * 512)
    assert coverage_data.whole([data.parent]) == ([], 1)
