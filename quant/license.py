"""Under which license an export may go out: its parent's."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from malmoi.errors import ReleaseError

README: Final = "README.md"
LICENSE_FILES: Final = re.compile(r"LICEN[CS]E|COPYING|NOTICE|USE_POLICY", re.IGNORECASE)
"""How the names of files begin that a release must carry along."""
NO_LICENSE: Final = re.compile(r"NOTICE|USE_POLICY", re.IGNORECASE)
"""Of those the ones that come beside a license."""
UNKNOWN: Final = "other"
"""The Hub's word for a license that it does not list."""
TITLES: Final[Mapping[str, str]] = {
    "apache license version 2.0": "apache-2.0",
    "mit license": "mit",
    "bsd 3-clause license": "bsd-3-clause",
    "attribution-noncommercial-sharealike 4.0": "cc-by-nc-sa-4.0",
    "attribution-noncommercial 4.0": "cc-by-nc-4.0",
    "attribution-sharealike 4.0": "cc-by-sa-4.0",
    "attribution 4.0": "cc-by-4.0",
    "llama 2 community license agreement": "llama2",
    "meta llama 3 community license agreement": "llama3",
    "llama 3.1 community license agreement": "llama3.1",
    "llama 3.2 community license agreement": "llama3.2",
    "gemma terms of use": "gemma",
}
"""The Hub's name of a license by its title, in lower case and without commas."""
TITLE_LINES: Final = 2
"""At most; Apache's has its version on the second."""
AROUND_TITLE: Final = re.compile(
    r"^[# ]*(the )?(creative commons )?|( january 2004| \(mit\)| international| public license)*$"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class License:
    """A license as the Hub's metadata names it, and where that was learnt."""

    identifier: str | list[str]
    told: str
    """A sentence for people."""
    name: str | None = None
    """Of one that the Hub does not list."""
    link: str | None = None
    files: tuple[Path, ...] = ()
    """Texts that go with it."""


def read_metadata(directory: Path) -> dict[str, Any]:
    """The Hub's metadata in front of a checkpoint's README.md; empty where there are none.

    Raises: ReleaseError if they cannot be read.
    """
    from huggingface_hub.repocard import metadata_load
    from yaml import YAMLError

    readme = directory / README
    try:
        return (metadata_load(readme) or {}) if readme.exists() else {}
    except (YAMLError, ValueError) as error:
        raise ReleaseError(
            readme,
            expected="metadata in YAML between two lines of ---",
            found=str(error),
            next_step="mend them: the license and languages of the release are taken from there",
        ) from None


def read_license(parent: Path) -> License:
    """The license of a checkpoint: as its README.md states it, else by the title of its license file."""
    files = tuple(
        sorted(file for file in parent.iterdir() if LICENSE_FILES.match(file.name) and file.is_file())
    )
    metadata = read_metadata(parent)
    stated = metadata.get("license")
    if stated:
        names = [str(name) for name in stated] if isinstance(stated, list) else [str(stated)]
        return License(
            identifier=names if isinstance(stated, list) else names[0],
            told=f"`{metadata.get('license_name') or ', '.join(names)}`, as the parent's README.md states.",
            name=metadata.get("license_name"),
            link=metadata.get("license_link"),
            files=files,
        )
    texts = [file for file in files if not NO_LICENSE.match(file.name)]
    for file in texts:
        identifier = next((TITLES[title] for title in _titles(file) if title in TITLES), None)
        if identifier is not None:
            told = f"`{identifier}`, by the title of the parent's {file.name}."
            return License(identifier=identifier, told=told, files=files)
    if texts:
        told = f"The parent's own: its text is in {texts[0].name}."
        return License(identifier=UNKNOWN, told=told, name="parent", link=texts[0].name, files=files)
    return License(
        identifier=UNKNOWN,
        told="**Not known**: the parent states none, neither in a README.md nor in a license file. "
        "Ask who published it before you use this or pass it on.",
        name="unknown",
        files=files,
    )


def _titles(file: Path) -> Iterator[str]:
    """What may be the title of its text: the first line, and that with the next."""
    text = file.read_text(encoding="utf-8", errors="replace").lower().replace(",", "")
    lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
    for number in range(1, TITLE_LINES + 1):
        yield AROUND_TITLE.sub("", " ".join(lines[:number]))
