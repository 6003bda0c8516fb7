"""The tests that the tables of faults and of advisories name are there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("faults", "server", "end_to_end", "floor")
NAMED = re.compile(r"(test_\w+)(?:\.py)?(?:::(test_\w+))?`")


@pytest.mark.parametrize(("page", "least"), [("faults.md", 25), ("limits.md", 15)])
def test_every_test_that_is_named_is_there(page: str, least: int) -> None:
    named = {match.groups() for match in NAMED.finditer((ROOT / "docs" / page).read_text())}
    assert len(named) >= least
    for module, function in named:
        (file,) = (file for folder in FOLDERS for file in (ROOT / "tests" / folder).glob(f"{module}.py"))
        assert function is None or f"\ndef {function}(" in file.read_text(), (module, function)
