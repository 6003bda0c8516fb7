"""`pytest -m gpu` runs what is marked so; each test skips, with the reason, where something is missing."""

import pytest

from benchmarks.gpu.skipping import why_skipped


def pytest_runtest_setup(item: pytest.Item) -> None:
    """@pytest.mark.gpu("serving") needs what that part of benchmarks.gpu needs; several, what all need."""
    for mark in item.iter_markers("gpu"):
        for part in mark.args:
            if reason := why_skipped(part, "cuda"):
                pytest.skip(f"{part}: {reason}")
