"""python -m benchmarks.vocabulary: measures, and writes RESULTS.md, growth.png and results.json."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import tyro

from benchmarks.machine import this_machine
from benchmarks.processes import proportional_bytes, tree
from benchmarks.results import emptied, this_command, write_json
from benchmarks.vocabulary import report
from malmoi.errors import reported_in_one_line
from train.recipe import Growth
from train.recipes.eeve import EEVE
from train.recipes.tedllm import TEDLLM

WORK = Path("build/benchmarks/vocabulary")
PACKAGES = ("malmoi", "tokenizers", "sentencepiece", "numba", "pyarrow", "datatrove", "mistral_common")
FRACTIONS = (0.125, 0.25, 0.5)
TIMES = 10
"""How often the corpus is repeated for the run that is to stay under its budget."""
MEMORY = 2 * 10**9
"""The command's own default, and the least it takes."""
SAMPLE_BYTES = 20 * 10**6


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """A tokenizer to grow, and the recipe it is grown by."""

    name: str
    path: str
    growth: Growth


def shipped_bases() -> list[Base]:
    """The real tokenizers that mistral_common ships: 32,000 SentencePiece pieces, and 131,072 of tekken's."""
    found = find_spec("mistral_common")
    assert found and found.origin, "mistral_common comes with vLLM"
    data = Path(found.origin).parent / "data"
    return [
        Base(name="sentencepiece", path=str(data / "tokenizer.model.v1"), growth=EEVE),
        Base(name="tekken", path=str(data / "tekken_240911.json"), growth=TEDLLM),
    ]


def measure(*, corpus: Path, english: tuple[Path, ...] = (), out: Path = WORK, repeat: bool = True) -> None:
    """Measure counting, choosing and what comes of it on a corpus of .jsonl.gz files.

    Args:
        corpus: directory of .jsonl.gz files with a field "text".
        english: directories of the same with English, whose lines must keep their ids.
        out: directory for the results and for what is made on the way.
        repeat: also count ten copies of the corpus under the same budget.
    """
    command = this_command("benchmarks.vocabulary")
    machine = this_machine(*PACKAGES)
    out.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {"command": command, "machine": asdict(machine), "bases": {}}
    for base in shipped_bases():
        results["bases"][base.name] = _measure_base(base, corpus, english, out)
        write_json(out, results)
    first = shipped_bases()[0]
    results["growth"] = [_of_fraction(first, corpus, out, fraction) for fraction in FRACTIONS]
    if repeat:
        results["repeated"] = _repeated(first, corpus, out)
    write_json(out, results)
    (out / "RESULTS.md").write_text(report.render(results))
    (out / "growth.png").write_bytes(report.growth_plot(results))
    print(out / "RESULTS.md")


def _measure_base(base: Base, corpus: Path, english: tuple[Path, ...], out: Path) -> dict[str, Any]:
    work, growth = str(out / base.name), asdict(base.growth)
    found = {
        "counter": _run("counter", corpus=str(corpus)),
        "table": _run("table", corpus=str(corpus), base=base.path, work=work, memory_bytes=MEMORY),
        "loop": _run("loop", base=base.path, work=work, growth=growth),
        "naive": _run("naive", corpus=str(corpus), base=base.path, work=work),
        "same": _run(
            "same",
            corpus=str(corpus),
            base=base.path,
            work=f"{work}-sample",
            growth=growth,
            sample_bytes=SAMPLE_BYTES,
        ),
    }
    paths = list(map(str, english))
    found["fertility"] = _run(
        "fertility", corpus=str(corpus), base=base.path, work=f"{work}-half", growth=growth, english=paths
    )
    return found


def _of_fraction(base: Base, corpus: Path, out: Path, fraction: float) -> dict[str, Any]:
    """The same on the first files that make up so much of the corpus."""
    folder = emptied(out / "fraction")
    files = sorted(corpus.glob("*.jsonl.gz"), key=lambda file: file.stat().st_size)
    wanted = fraction * sum(file.stat().st_size for file in files)
    for file in files:
        if wanted < file.stat().st_size / 2:
            break
        wanted -= file.stat().st_size
        shutil.copy(file, folder)
    work = str(out / "fraction-work")
    growth = asdict(replace(base.growth, num_new=1024))
    return {
        "table": _run("table", corpus=str(folder), base=base.path, work=work, memory_bytes=MEMORY),
        "loop": _run("loop", base=base.path, work=work, growth=growth),
        "naive": _run("naive", corpus=str(folder), base=base.path, work=work),
    }


def _repeated(base: Base, corpus: Path, out: Path) -> dict[str, Any]:
    folder = emptied(out / "repeated")
    for number in range(TIMES):
        for file in sorted(corpus.glob("*.jsonl.gz")):
            shutil.copy(file, folder / f"{number}-{file.name}")
    work = str(out / "repeated-work")
    found = {"table": _run("table", corpus=str(folder), base=base.path, work=work, memory_bytes=MEMORY)}
    found["loop"] = _run("loop", base=base.path, work=work, growth=asdict(base.growth))
    shutil.rmtree(folder)
    return found


def _run(task: str, **options: Any) -> dict[str, Any]:
    """A task in a process of its own, and the greatest memory that it and its workers held together."""
    print(f"{task} {options.get('base', '')} {options.get('corpus', '')}", file=sys.stderr, flush=True)
    command = [sys.executable, "-m", "benchmarks.vocabulary.task", task, json.dumps(options)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | {"TOKENIZERS_PARALLELISM": "true"}
    )
    peak = 0
    ended = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not ended.wait(0.1):
            peak = max(peak, proportional_bytes(tree(process.pid)))

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    said, _ = process.communicate()
    ended.set()
    watcher.join()
    if process.returncode:
        raise SystemExit(process.returncode)
    return {
        **json.loads(said.splitlines()[-1]),
        "peak_bytes": peak,
        "whole_seconds": time.perf_counter() - start,
    }


if __name__ == "__main__":
    with reported_in_one_line():
        tyro.cli(measure, prog="python -m benchmarks.vocabulary")
