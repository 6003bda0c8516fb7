"""Where a benchmark's files go."""

import json
import shlex
import shutil
import sys
from pathlib import Path


def emptied(folder: Path) -> Path:
    """`folder`, there and empty."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def raw_folder(out: Path) -> Path:
    """raw/ in `out`, empty. Of `out` itself, which is the user's, only RESULTS.md of an earlier run goes."""
    (out / "RESULTS.md").unlink(missing_ok=True)
    return emptied(out.absolute() / "raw")


def write_json(out: Path, results: object) -> None:
    """results.json in `out`."""
    (out / "results.json").write_text(json.dumps(results, indent=1, ensure_ascii=False), encoding="utf-8")


def this_command(benchmark: str) -> str:
    """How the benchmark was started."""
    return shlex.join(["python", "-m", benchmark, *sys.argv[1:]])
