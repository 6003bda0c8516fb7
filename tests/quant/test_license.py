"""The license of a release is its parent's, or is said not to be known."""

from pathlib import Path

import pytest

from malmoi.errors import ReleaseError
from quant.license import read_license, read_metadata

ROOT = Path(__file__).parents[2]


def test_as_the_readme_states(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("---\nlicense: cc-by-nc-4.0\nlanguage: [ko, en]\n---\n# Model\n")
    (tmp_path / "LICENSE").write_bytes((ROOT / "LICENSE").read_bytes())
    found = read_license(tmp_path)
    assert (found.identifier, found.name, found.link) == ("cc-by-nc-4.0", None, None)
    assert found.files == (tmp_path / "LICENSE",)
    assert read_metadata(tmp_path)["language"] == ["ko", "en"]


def test_one_that_the_hub_does_not_list(tmp_path: Path) -> None:
    front = "license: other\nlicense_name: tongyi\nlicense_link: https://example.org/license"
    (tmp_path / "README.md").write_text(f"---\n{front}\n---\n")
    found = read_license(tmp_path)
    assert (found.identifier, found.name, found.link) == ("other", "tongyi", "https://example.org/license")
    assert "`tongyi`" in found.told


def test_several(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("---\nlicense: [apache-2.0, mit]\n---\n")
    found = read_license(tmp_path)
    assert found.identifier == ["apache-2.0", "mit"]
    assert "`apache-2.0, mit`" in found.told


@pytest.mark.parametrize(
    ("text", "identifier"),
    [
        ((ROOT / "LICENSE").read_text(), "apache-2.0"),
        ("MIT License\n\nCopyright (c) 2024\n\nPermission is hereby granted", "mit"),
        ("LLAMA 2 COMMUNITY LICENSE AGREEMENT\nLlama 2 Version Release Date: July 18, 2023", "llama2"),
        (
            "Attribution-NonCommercial 4.0 International\n\nCreative Commons Attribution-NonCommercial 4.0",
            "cc-by-nc-4.0",
        ),
        ("Creative Commons Attribution 4.0 International", "cc-by-4.0"),
        ("# The MIT License (MIT)\n\nCopyright", "mit"),
    ],
)
def test_by_the_title_of_its_text(tmp_path: Path, text: str, identifier: str) -> None:
    (tmp_path / "README.md").write_text("# A model without metadata\n")
    (tmp_path / "LICENSE.txt").write_text(text)
    (tmp_path / "NOTICE").write_text("Built with something")
    found = read_license(tmp_path)
    assert found.identifier == identifier
    assert "title of the parent's LICENSE.txt" in found.told
    assert [file.name for file in found.files] == ["LICENSE.txt", "NOTICE"]


def test_a_text_nobody_knows_goes_along(tmp_path: Path) -> None:
    (tmp_path / "LICENSE").write_text("Only on Tuesdays.")
    found = read_license(tmp_path)
    assert (found.identifier, found.name, found.link) == ("other", "parent", "LICENSE")


def test_none_is_said_plainly(tmp_path: Path) -> None:
    found = read_license(tmp_path)
    assert (found.identifier, found.name, found.files) == ("other", "unknown", ())
    assert found.told.startswith("**Not known**")


@pytest.mark.parametrize("front", ["license: [apache-2.0", "- apache-2.0"])
def test_metadata_that_cannot_be_read(tmp_path: Path, front: str) -> None:
    (tmp_path / "README.md").write_text(f"---\n{front}\n---\n")
    with pytest.raises(ReleaseError, match=r"README\.md: expected metadata in YAML"):
        read_license(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "ACME Model License. This agreement does not permit licensees to use the weights in products.",
        "ACME Research License 1.0\n\nWe submit licensed weights for research only.",
        "Modified MIT License\n\nOur only modification is that it is not for everybody.",
        "A modified version of the Apache License, Version 2.0, with additional conditions",
    ],
)
def test_a_license_that_only_sounds_like_another_is_the_parents_own(tmp_path: Path, text: str) -> None:
    (tmp_path / "LICENSE").write_text(text)
    assert read_license(tmp_path).identifier == "other"


def test_files_are_known_by_their_names_in_any_case(tmp_path: Path) -> None:
    (tmp_path / "LICENSES").mkdir()
    (tmp_path / "license.txt").write_text("MIT License\n\nCopyright")
    found = read_license(tmp_path)
    assert (found.identifier, found.files) == ("mit", (tmp_path / "license.txt",))


def test_a_number_is_a_name_as_any_other(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("---\nlicense: 2.0\n---\n")
    assert read_license(tmp_path).identifier == "2.0"
