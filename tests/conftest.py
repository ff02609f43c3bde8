"""For all tiers: each test is checked for what it leaves behind."""

import pytest

pytest.register_assert_rewrite("tests.contract", "tests.leaks")
pytest_plugins = ["tests.coverage_of_keepers", "tests.leaks"]
