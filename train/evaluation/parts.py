"""What has been found out so far, one file for each part, so that an interrupted evaluation goes on."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from malmoi.files import write_whole
from malmoi.provenance import text_digest

Record = dict[str, Any]


class Parts:
    """The parts in a directory. One that was found out for something else is found out again."""

    def __init__(self, folder: Path, decides: Mapping[str, Any]) -> None:
        """`decides`: what all parts depend on, as JSON has it: the model, the libraries."""
        self._folder = folder
        self._decides = decides

    def get(self, name: str, decides: Mapping[str, Any], find: Callable[[], Record]) -> Record:
        """The part as it was kept, or else as `find` finds it. `decides`: what this part depends on."""
        key = text_digest(json.dumps({**self._decides, **decides}, sort_keys=True))
        file = self._folder / f"{name}.json"
        kept = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        if kept.get("key") != key:
            kept = {"key": key, "found": find()}
            write_whole(file, json.dumps(kept, ensure_ascii=False))
        found: Record = kept["found"]
        return found
