"""The reference is what the code says now, and every --help in it reads well in 80 columns."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.pages import blocks

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reference.md"
HELPS = {block.text.splitlines()[0]: block.text for block in blocks(PAGE) if block.language == "text"}
COMMANDS = {"malmoi-train": 11, "malmoi-quant": 3, "malmoi-serve": 4}
WIDTH = 80
ENTRY = re.compile(r"│ (-\S.*?)(?:  +(.*?))? *│$")


def test_the_page_is_what_the_code_says_now() -> None:
    made = subprocess.run(
        [sys.executable, "docs/make_reference.py"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert made.stdout == PAGE.read_text(encoding="utf-8")


def test_it_has_every_command() -> None:
    for program, num in COMMANDS.items():
        assert sum(usage.startswith(f"usage: {program} ") for usage in HELPS) == num


@pytest.mark.parametrize("text", HELPS.values(), ids=[usage.split("[")[0].strip() for usage in HELPS])
def test_a_help_reads_well_in_80_columns(text: str) -> None:
    lines = text.splitlines()
    assert max(map(len, lines)) <= WIDTH
    assert "None" not in text
    entries = [(number, found) for number, line in enumerate(lines) if (found := ENTRY.match(line))]
    assert entries
    for number, found in entries:
        told = found[2] or lines[number + 1].strip("│ ")
        assert re.match(r"[A-Za-z0-9]", told), f"{found[1]} has no text"


@pytest.mark.parametrize("program", ["train", "quant", "server", "server keys"])
def test_the_help_of_a_program_fits_too(program: str) -> None:
    command = [sys.executable, "-m", *program.split(), "--help"]
    environment = {"COLUMNS": str(WIDTH), "PYTHONIOENCODING": "utf-8"}
    text = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout
    assert text.startswith("usage: malmoi-")
    assert max(map(len, text.splitlines())) <= WIDTH
