"""For all tiers: each test is checked for what it leaves behind, and none has to be quick on a busy machine."""

import pytest

pytest.register_assert_rewrite("tests.contract", "tests.leaks")
pytest_plugins = ["tests.coverage_of_keepers", "tests.leaks"]


def pytest_configure(config: pytest.Config) -> None:
    """Properties may take their time. A tier that has none leaves the plugin out, and is spared the import."""
    if config.pluginmanager.has_plugin("hypothesispytest"):
        from hypothesis import settings  # noqa: PLC0415  see above

        settings.register_profile("busy", deadline=None)
        settings.load_profile("busy")
