"""The tutorial, run as it is written; and, fast, that every command of every page is there."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.pages import Block, Follower, blocks

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
TUTORIAL = ROOT / "docs" / "tutorial.md"
REFERENCE = ROOT / "docs" / "reference.md"
CONTINUED = re.compile(r"\\?\n +|\\\n")
COMMAND = re.compile(r"malmoi-(?:train|quant|serve) (?:(?! (?:--|#|\||>) |; ).)+")
"""Up to the options of vLLM, a comment, or another command."""
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
HELP: dict[str, str] = dict(
    re.findall(
        r"^### (malmoi-[^\n]*)\n\n```text\n(.*?)^```", REFERENCE.read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
)


def run_blocks(page: Path) -> list[Block]:
    return [block for block in blocks(page) if block.language in ("bash", "python")]


def help_of(command: str) -> str:
    """What --help says of a command line's command."""
    words = command.split()
    names = [" ".join(words[:length]) for length in (3, 2, 1)]
    return next(HELP[name] for name in names if name in HELP)


@pytest.mark.parametrize("page", [page for page in PAGES if page != REFERENCE], ids=lambda page: page.name)
def test_every_command_and_option_of_a_page_is_there(page: Path) -> None:
    for block in blocks(page):
        for line in CONTINUED.sub(" ", block.text).splitlines():
            for command in COMMAND.findall(line):
                known = set(OPTION.findall(help_of(command)))
                assert set(OPTION.findall(command)) <= known, f"{page.name}:{block.line}"


@pytest.mark.parametrize("page", [TUTORIAL, ROOT / "README.md"], ids=lambda page: page.name)
def test_every_block_that_is_run_can_be_read(page: Path) -> None:
    assert len(run_blocks(page)) > 3
    for block in run_blocks(page):
        if block.language == "python":
            compile(block.text, f"{page.name}:{block.line}", "exec")
        else:
            subprocess.run(["bash", "-n", "-c", block.text], check=True)


def bits_per_byte(evaluated: Path) -> float:
    results = json.loads((evaluated / "results.json").read_text(encoding="utf-8"))
    return float(results["language"]["korean"]["bits_per_byte"])


@pytest.mark.slow
def test_the_tutorial_as_it_is_written(tmp_path: Path) -> None:
    (tmp_path / ".venv").symlink_to(ROOT / ".venv")
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    with Follower(tmp_path) as follower:
        printed = [follower.run(block) for block in run_blocks(TUTORIAL)]
    answer = json.loads(printed[-1])["choices"][0]["message"]["content"]
    assert "서울" in answer
    bits = {name: bits_per_byte(tmp_path / f"tutorial/evaluated/{name}") for name in ("base", "korean")}
    assert bits["korean"] < bits["base"]
