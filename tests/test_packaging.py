"""What is installed and shipped is what the names promise."""

import ast
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from importlib.metadata import distribution, packages_distributions
from pathlib import Path

import pytest

import malmoi

ROOT = Path(__file__).parents[1]
NAMES = ("malmoi", "train", "quant", "server")
LATER = {"signing.py": {"model_signing"}}
"""What of the floor imports when it is called, for the rooms that have it."""


def test_the_four_names_are_ours_alone() -> None:
    owners = packages_distributions()
    assert {name: set(owners[name]) for name in NAMES} == {name: {"malmoi"} for name in NAMES}
    for name in NAMES:
        module = __import__(name)
        assert module.__file__ is not None
        assert Path(module.__file__).parent == ROOT / name


def test_scripts_and_guard_against_upload() -> None:
    ours = distribution("malmoi")
    scripts = {entry.name for entry in ours.entry_points if entry.group == "console_scripts"}
    assert scripts == {"malmoi-train", "malmoi-quant", "malmoi-serve"}
    assert "Private :: Do Not Upload" in ours.metadata.get_all("Classifier", [])


def test_wheel_holds_the_rooms_and_the_template_and_nothing_else(tmp_path: Path) -> None:
    source = tmp_path / "source"  # a copy: setuptools reuses what an earlier build left beside the sources
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in NAMES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(source)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {*NAMES, f"malmoi-{malmoi.__version__}.dist-info"}
    assert "malmoi/korae.jinja" in names
    page = [
        file for file in (ROOT / "server/page").iterdir() if file.suffix in (".html", ".css", ".js", ".svg")
    ]
    assert len(page) > 5
    assert {str(file.relative_to(ROOT)) for file in page} <= set(names)
    sources = {str(path.relative_to(ROOT)) for room in NAMES for path in (ROOT / room).rglob("*.py")}
    assert sources == {name for name in names if name.endswith(".py")}


def test_changelog_begins_with_this_version() -> None:
    headings = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == malmoi.__version__


@pytest.mark.parametrize("path", sorted((ROOT / "malmoi").glob("*.py")), ids=lambda path: path.name)
def test_floor_imports_the_standard_library_only(path: Path) -> None:
    tree = ast.parse(path.read_text())
    floor = {*sys.stdlib_module_names, "malmoi"}
    assert imported(tree.body) <= floor
    assert imported(list(ast.walk(tree))) <= floor | LATER.get(path.name, set())


def imported(nodes: Sequence[ast.AST]) -> set[str]:
    """The packages that these statements import."""
    return {
        (node.module if isinstance(node, ast.ImportFrom) else alias.name).split(".")[0]  # type: ignore[union-attr]
        for node in nodes
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }


def test_constraints_pin_exactly_and_name_no_index() -> None:
    files = sorted((ROOT / "deploy" / "install").glob("constraints-*.txt"))
    assert [file.name for file in files] == ["constraints-cpu.txt", "constraints-gpu.txt"]
    for file in files:
        lines = file.read_text().splitlines()
        assert lines
        assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.!+-]+", line) for line in lines), file.name


def test_pinned_requirements_agree_with_the_constraints() -> None:
    pins = dict(
        line.split("==") for line in (ROOT / "deploy/install/constraints-cpu.txt").read_text().splitlines()
    )
    pins = {name.lower().replace("_", "-"): version.removesuffix("+cpu") for name, version in pins.items()}
    required = [
        re.match(r"([\w.-]+)(?:\[[^]]*\])?==([^;\s]+)", line) for line in distribution("malmoi").requires or []
    ]
    pairs = [found.groups() for found in required if found]
    assert len(pairs) > 10
    assert {name: pins[name] for name, _ in pairs if name != "vllm"} == {n: v for n, v in pairs if n != "vllm"}
