"""The project's own checks: lint, types, the tiers of tests, coverage. Started by scripts/test."""
