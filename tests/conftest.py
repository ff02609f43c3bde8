"""For all tiers: each test is checked for what it leaves behind, and none has to be quick on a busy machine."""

import pytest
from hypothesis import settings

pytest.register_assert_rewrite("tests.contract", "tests.leaks")
pytest_plugins = ["tests.coverage_of_keepers", "tests.leaks"]
settings.register_profile("busy", deadline=None)
settings.load_profile("busy")
