"""Another suite's packages come through the machine's own apt sources."""

import pytest

from checks.debian import renamed

REST = "URIs: http://mirror.test/debian\n{suites}\nComponents: main\nSigned-By: /usr/share/keyrings/keys.gpg"


@pytest.mark.parametrize(
    ("here", "there"),
    [
        ("Suites: bookworm", "Suites: trixie"),
        ("Suites: bookworm bookworm-updates", "Suites: trixie"),
        ("Suites:\tstable bookworm", "Suites: trixie"),
    ],
)
def test_the_suite_alone_changes(here: str, there: str) -> None:
    assert renamed([REST.format(suites=here)], "bookworm", "trixie") == [REST.format(suites=there)]


@pytest.mark.parametrize("suites", ["Suites: bookworm-security", "Suites: nodistro", "Suites: trixie"])
def test_what_is_not_of_the_release_is_left_out(suites: str) -> None:
    assert renamed([REST.format(suites=suites)], "bookworm", "trixie") == []
