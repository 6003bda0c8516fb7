"""malmoi-train: a few commands, each of which ends in a checkpoint."""

import logging
import os
import shutil
import sys
import textwrap
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal, TextIO, TypeVar, cast

import tyro
from tyro.extras import SubcommandApp

from malmoi.errors import reported_in_one_line
from malmoi.help_text import unfolded
from train.pace import Pace

LOUD_AT_IMPORT = ("torchao", "torch.utils._pytree", "bitsandbytes")
"""Libraries that transformers loads when they are there, and that tell of kernels nobody asked for."""

Fitted = Annotated[Pace, tyro.conf.OmitArgPrefixes]
PACE = Pace()
T = TypeVar("T")
Maybe = Annotated[T | None, tyro.conf.arg(help_behavior_hint="")]
"""An option whose text says what holds without it."""
Inputs = Annotated[tuple[str, ...], tyro.conf.arg(help_behavior_hint="", metavar="STR...")]
CONFIG = (tyro.conf.DisallowNone, tyro.conf.FlagCreatePairsOff)

app = SubcommandApp()


@app.command
@unfolded
def demo(out: Path, seed: int = 0, overwrite: bool = False) -> None:
    """Train a small Korean chat model from nothing, to see every later step work.

    Args:
        out: Directory to write the checkpoint to.
        seed: The same seed on the same machine gives the same bytes.
        overwrite: Replace what is in the directory.
    """
    _wait_without_spinning()
    from train.demo.course import OVERALL, teach

    metrics = teach(out, seed=seed, overwrite=overwrite)
    print(f"{out}: {metrics[OVERALL]:.1%} of held-out questions answered right")


@app.command
@unfolded
def vocabulary(
    base: Path,
    corpus: Annotated[tuple[str, ...], tyro.conf.arg(metavar="CORPUS...")],
    out: Path,
    recipe: str = "eeve",
    size: Maybe[int] = None,
    threshold: Maybe[int] = None,
    keep: Maybe[Path] = None,
    drop: Maybe[Path] = None,
    held_out: Inputs = (),
    vectors: Maybe[Path] = None,
    text_field: str = "text",
    on_bad_line: Literal["refuse", "skip"] = "refuse",
    memory: str = "2GB",
    work: Maybe[Path] = None,
    seed: int = 0,
    overwrite: bool = False,
) -> None:
    """Grow a base's vocabulary by the words of a Korean corpus, with a report.

    Killed, the same command goes on where it was.

    Args:
        base: Checkpoint directory; or tokenizer.json, SentencePiece model or tekken.json for a tokenizer alone.
        corpus: Files (text, JSONL, Parquet; also .gz, .zst), directories, globs in quotes, or hub:NAME[:SPLIT].
        out: Directory to write the checkpoint to.
        recipe: The published model whose numbers are used (eeve, tedllm), or my.module:RECIPE.
        size: Tokens to add; with the base's a multiple of 64. Default: the recipe's.
        threshold: Occurrences in the corpus below which a token is dropped. Default: the recipe's rate.
        keep: File of texts, one on each line (tokens.tsv will do), that become tokens however rare.
        drop: File of texts that must not become tokens.
        held_out: Texts to report on, named as the corpus is. Default: the corpus itself.
        vectors: For similar rows: fastText .bin, word2vec .vec, or sentence-transformers directory. Default:
            trained on the corpus.
        text_field: Field that holds the text.
        on_bad_line: Stop at a line without a text, or leave it out and count it.
        memory: Budget for counting words; at least 2GB.
        work: Directory of the run so far. Default: OUT.work.
        seed: For random rows.
        overwrite: Replace what is in OUT.
    """
    _wait_without_spinning()
    from train.recipe import Growth
    from train.recipes import GROWTHS, find_recipe
    from train.vocabulary import command
    from train.vocabulary.growth import Request

    chosen = find_recipe(recipe, GROWTHS, Growth)
    request = Request(
        base=base,
        corpus=corpus,
        recipe=chosen,
        num_new=chosen.num_new if size is None else size,
        threshold=threshold,
        keep=command.read_texts_of(keep),
        drop=command.read_texts_of(drop),
        vectors=vectors,
        text_field=text_field,
        on_bad_line=on_bad_line,
        seed=seed,
    )
    work = _work_of(out, work)
    memory_bytes = command.bytes_of(memory)
    grown = command.run(request, out, work, memory_bytes=memory_bytes, overwrite=overwrite, held_out=held_out)
    num_new, num_all = len(grown.choice.tokens), grown.tokenizer.num_ids
    print(f"{out}: {num_new} tokens added, {num_all} in all; see {out / 'report.md'}")


@app.command
@unfolded
def corpus(
    corpus: Annotated[tuple[str, ...], tyro.conf.arg(metavar="CORPUS...")],
    out: Path,
    english: Inputs = (),
    parallel: Inputs = (),
    tokenizer: Maybe[Path] = None,
    num_old: Maybe[int] = None,
    recipe: Maybe[str] = None,
    without: Annotated[
        tuple[
            Literal["pii", "filters", "cleaning", "exact", "near", "new-tokens", "mixture", "curriculum"], ...
        ],
        tyro.conf.arg(metavar="STEP...", help_behavior_hint=""),
    ] = (),
    pii: Maybe[Literal["tokens", "same-shape"]] = None,
    bad_words: Maybe[Path] = None,
    min_new_share: float = 0.1,
    english_share: float = 0.2,
    text_field: str = "text",
    pair_fields: tuple[str, str] = ("en", "ko"),
    on_bad_line: Literal["refuse", "skip"] = "refuse",
    work: Maybe[Path] = None,
    seed: int = 0,
    overwrite: bool = False,
) -> None:
    """Mask personal numbers in texts; filter, clean, deduplicate, mix and order them.

    Killed, the same command goes on where it was.

    Args:
        corpus: Korean texts: files (text, JSONL, Parquet; also .gz, .zst), directories, globs in quotes, or
            hub:NAME[:SPLIT].
        out: Directory to write the texts and the report to.
        english: English texts, to be a share of the result.
        parallel: Translation pairs: JSONL or Parquet with a field for each language.
        tokenizer: Grown tokenizer (directory or file), in whose tokens shares are counted.
        num_old: Tokens of the base it was grown from. Default: what the report.json beside it says.
        recipe: polyglot, or my.module:RECIPE, for its steps and numbers. Default: all steps.
        without: Steps to leave out: pii, filters, cleaning, exact, near, new-tokens, mixture, curriculum.
        pii: Put tokens in place of personal numbers, or random digits of the same shape. Default: tokens.
        bad_words: File of words, one on each line; texts that hold one are dropped.
        min_new_share: Of a Korean text's tokens, the share that must be new.
        english_share: Of all tokens.
        text_field: Field that holds the text.
        pair_fields: Fields that hold the two languages of a pair.
        on_bad_line: Stop at a line without a text, or leave it out and count it.
        work: Directory of the run so far. Default: OUT.work.
        seed: For draws: English texts, the order without a curriculum, digits of the same shape.
        overwrite: Replace what is in OUT.
    """
    _wait_without_spinning()
    from train.corpus import command
    from train.corpus.filters import read_bad_words
    from train.corpus.preparation import EVERYTHING, CorpusRecipe, Preparation
    from train.recipes import find_recipe
    from train.recipes.polyglot import POLYGLOT

    chosen = find_recipe(recipe, {POLYGLOT.name: POLYGLOT}, CorpusRecipe) if recipe else EVERYTHING
    words = () if bad_words is None else read_bad_words(bad_words)
    preparation = Preparation(
        corpus=corpus,
        english=english,
        parallel=parallel,
        without=(*chosen.without, *without),
        pii=pii or chosen.pii,
        quality=replace(chosen.quality, bad_words=words or chosen.quality.bad_words),
        near=chosen.near,
        assumed=chosen.assumed,
        tokenizer=tokenizer,
        num_old=num_old,
        min_new_share=min_new_share,
        english_share=english_share,
        text_field=text_field,
        pair_fields=pair_fields,
        on_bad_line=on_bad_line,
        seed=seed,
    )
    prepared = command.run(preparation, out, _work_of(out, work), overwrite=overwrite)
    print(f"{out}: {command.summary(prepared)}; see {out / 'report.md'}")


@app.command
@unfolded
def pretrain(
    base: Path,
    corpus: Annotated[tuple[str, ...], tyro.conf.arg(metavar="CORPUS...")],
    out: Path,
    recipe: str = "eeve",
    english: Inputs = (),
    held_out: Inputs = (),
    held_out_english: Inputs = (),
    tokens: Maybe[int] = None,
    pace: Fitted = PACE,
    text_field: str = "text",
    on_bad_line: Literal["refuse", "skip"] = "refuse",
    work: Maybe[Path] = None,
    seed: int = 0,
) -> None:
    """Train a grown base in a recipe's stages, each of which ends in a checkpoint.

    Killed, the same command goes on where it was.

    Several processes: torchrun -m train pretrain ...

    Args:
        base: Checkpoint whose vocabulary malmoi-train vocabulary has grown.
        corpus: Korean: files (text, JSONL, Parquet; also .gz, .zst), directories, globs in quotes, or
            hub:NAME[:SPLIT].
        out: Directory for the stages' checkpoints.
        recipe: eeve, eeve-2.8b, eeve-tied, tedllm, kollama2-lora, kollama2-qlora, kollama2-full, or
            my.module:RECIPE.
        english: English text, for recipes that mix some in.
        held_out: Korean text to measure on. Default: a hundredth of the corpus, which is not trained on.
        held_out_english: The same of English; measured also where none is trained on.
        tokens: To train on in all, shared among the stages as the recipe does. Default: the recipe's.
        text_field: Field that holds the text.
        on_bad_line: Stop at a line without a text, or leave it out and count it.
        work: Directory of the run so far. Default: OUT.work.
        seed: For the order of the text, and adapters.
    """
    _wait_without_spinning()
    from train.loop import say
    from train.pretraining.stages import Request, run_stages
    from train.recipe import Pretraining
    from train.recipes import PRETRAININGS, find_recipe

    chosen = find_recipe(recipe, PRETRAININGS, Pretraining)
    request = Request(
        recipe=chosen if tokens is None else chosen.with_tokens(tokens),
        base=base,
        korean=corpus,
        english=english,
        held_out_korean=held_out,
        held_out_english=held_out_english,
        text_field=text_field,
        on_bad_line=on_bad_line,
        seed=seed,
    )
    made = run_stages(request, out, _work_of(out, work), pace)
    say(f"{made[-1]}: the last stage; all are in {out}", sys.stdout)


@app.command
@unfolded
def data(
    out: Path,
    dialogues: Inputs = (),
    preferences: Inputs = (),
    weights: tuple[float, ...] = (),
    held_out: float = 0.05,
    without: tuple[Literal["pii", "exact"], ...] = (),
    pii: Literal["tokens", "same-shape"] = "tokens",
    on_bad_row: Literal["refuse", "skip"] = "refuse",
    seed: int = 0,
    overwrite: bool = False,
) -> None:
    """Prepare chat or preference data: convert, mask, deduplicate, split and mix.

    Known by columns: Alpaca, KULLM-v2, KoRAE, Dolly, ShareGPT, OpenAI, preferences.

    Args:
        out: Directory to write train.jsonl, held_out.jsonl and the report to.
        dialogues: Files (JSON lines, JSON list, Parquet; also .gz, .zst), directories, globs in quotes, or
            hub:NAME[:SPLIT].
        preferences: The same of preferences. Name these or dialogues.
        weights: For each of them, how often its rows are trained on: 2 is twice, 0.5 half of them once.
            Default: 1.
        held_out: Share of what users say that is not trained on.
        without: Steps to leave out: masking, or deduplication.
        pii: Put tokens in place of personal numbers, or random digits of the same shape.
        on_bad_row: Stop at a row that holds no dialogue or preference, or leave it out and count it.
        seed: For the order, and the draw by weights.
        overwrite: Replace what is in OUT.
    """
    from train.tuning import data_command
    from train.tuning.preparation import Preparation

    kind, corpus = data_command.kind_and_corpus(dialogues, preferences)
    preparation = Preparation(
        kind=kind,
        corpus=corpus,
        weights=weights,
        held_out_share=held_out,
        without=without,
        pii=pii,
        on_bad_row=on_bad_row,
        seed=seed,
    )
    prepared = data_command.run(preparation, out, overwrite=overwrite)
    print(f"{out}: {data_command.summary(prepared)}; see {out / 'report.md'}")


@app.command
@unfolded
def rate(
    dialogues: Annotated[tuple[str, ...], tyro.conf.arg(metavar="DIALOGUES...")],
    endpoint: str,
    model: str,
    out: Path,
    language: Literal["ko", "en"] = "ko",
    max_requests: Maybe[int] = None,
    max_tokens: Maybe[int] = None,
    threshold: float = 8.5,
    concurrency: int = 8,
    attempts: int = 8,
    timeout: float = 60,
    key_file: Maybe[Path] = None,
    tokenizer: Maybe[Path] = None,
    estimate: bool = False,
    on_bad_row: Literal["refuse", "skip"] = "refuse",
    work: Maybe[Path] = None,
    overwrite: bool = False,
) -> None:
    """Have a language model rate conversations from 0 to 10, and keep the good ones.

    Stopped or killed, the same command goes on, and asks nothing twice.

    Args:
        dialogues: Files (JSON lines, JSON list, Parquet; also .gz, .zst), directories, globs in quotes, or
            hub:NAME[:SPLIT].
        endpoint: Address of an OpenAI-compatible API, such as http://127.0.0.1:8000/v1 (malmoi-serve's).
        model: Name of the model that rates.
        out: Directory to write kept.jsonl, dropped.jsonl, unread.jsonl and the report to.
        language: Of the prompt, and of the explanations.
        max_requests: To send in all, with earlier runs and retries. Default: no limit.
        max_tokens: For prompts and answers in all. Default: no limit.
        threshold: Lowest score that is kept.
        concurrency: Requests on their way at once.
        attempts: Requests for one conversation before it is given up for this run.
        timeout: Seconds for a request.
        key_file: File with the key for the endpoint. Default: the environment's OPENAI_API_KEY.
        tokenizer: The model's tokenizer.json, to estimate with. Default: a guess from characters.
        estimate: Only tell what it would cost.
        on_bad_row: Stop at a row that holds no dialogue, or leave it out and count it.
        work: Directory of the answers so far. Default: OUT.work.
        overwrite: Replace what is in OUT.
    """
    from train.tuning.rating import command
    from train.tuning.rating.asking import Pace
    from train.tuning.rating.endpoint import read_key

    rating = command.Rating(
        dialogues=dialogues,
        endpoint=endpoint,
        model=model,
        key=read_key(key_file),
        language=language,
        max_requests=max_requests,
        max_tokens=max_tokens,
        pace=Pace(concurrency=concurrency, num_attempts=attempts),
        timeout_s=timeout,
        threshold=threshold,
        tokenizer=tokenizer,
        on_bad_row=on_bad_row,
    )
    if estimate:
        print(command.tell_estimate(rating, _work_of(out, work)))
        return
    filtered = command.run(rating, out, _work_of(out, work), overwrite=overwrite)
    print(f"{out}: {command.summary(filtered)}; see {out / 'report.md'}")


@app.command
@unfolded
def sft(
    base: Path,
    data: Annotated[tuple[str, ...], tyro.conf.arg(metavar="DATA...")],
    out: Path,
    recipe: str = "korae",
    method: Maybe[Literal["lora", "qlora", "full"]] = None,
    template: Maybe[Literal["korae", "eeve", "kullm", "alpaca", "vicuna", "llama-2"]] = None,
    held_out: Inputs = (),
    epochs: Maybe[int] = None,
    pace: Fitted = PACE,
    on_bad_row: Literal["refuse", "skip"] = "refuse",
    work: Maybe[Path] = None,
    seed: int = 0,
    overwrite: bool = False,
) -> None:
    """Tune a base on dialogues: the assistant's answers are learnt, nothing else.

    Ends in a chat checkpoint. Killed, the same command goes on where it was.

    Several processes: torchrun -m train sft ...

    Args:
        base: Checkpoint to tune.
        data: Dialogues, as malmoi-train data reads and writes them.
        out: Directory to write the checkpoint to.
        recipe: korae, kollama2-lora, kollama2-qlora, kollama2-full, or my.module:RECIPE.
        method: Adapters over 16 bits, adapters over 4 bits, or everything. Default: the recipe's.
        template: Chat format. Default: the recipe's.
        held_out: Dialogues to measure the loss on.
        epochs: Times to go through the data. Default: the recipe's.
        on_bad_row: Stop at a row that holds no dialogue, or leave it out and say so.
        work: Directory of the run so far. Default: OUT.work.
        seed: For the order of the data, and adapters.
        overwrite: Replace what is in OUT.
    """
    _wait_without_spinning()
    from train.loop import say
    from train.recipe import Tuning
    from train.recipes import ANSWERS, find_recipe
    from train.tuning import tune_command

    chosen = find_recipe(recipe, ANSWERS, Tuning)
    asked = tune_command.adapted(chosen, method=method, template=template, epochs=epochs)
    request = tune_command.request_of(asked, base, data, held_out, on_bad_row, seed)
    say(tune_command.run(request, out, _work_of(out, work), pace, overwrite=overwrite), sys.stdout)


@app.command
@unfolded
def dpo(
    base: Path,
    data: Annotated[tuple[str, ...], tyro.conf.arg(metavar="DATA...")],
    out: Path,
    recipe: str = "korae",
    method: Maybe[Literal["lora", "qlora", "full"]] = None,
    held_out: Inputs = (),
    epochs: Maybe[int] = None,
    pace: Fitted = PACE,
    on_bad_row: Literal["refuse", "skip"] = "refuse",
    work: Maybe[Path] = None,
    seed: int = 0,
    overwrite: bool = False,
) -> None:
    """Tune a chat model on preferences between two answers (DPO).

    Killed, the same command goes on where it was.

    Several processes: torchrun -m train dpo ...

    Args:
        base: Chat checkpoint to tune; it is also the reference, and its chat format is kept.
        data: Preferences, as malmoi-train data reads and writes them.
        out: Directory to write the checkpoint to.
        recipe: korae, or my.module:RECIPE.
        method: Adapters over 16 bits, adapters over 4 bits, or everything. Default: the recipe's.
        held_out: Preferences to measure accuracy and margin on.
        epochs: Times to go through the data. Default: the recipe's.
        on_bad_row: Stop at a row that holds no preference, or leave it out and say so.
        work: Directory of the run so far. Default: OUT.work.
        seed: For the order of the data, and adapters.
        overwrite: Replace what is in OUT.
    """
    _wait_without_spinning()
    from train.loop import say
    from train.recipe import Tuning
    from train.recipes import PREFERENCES, find_recipe
    from train.tuning import tune_command

    chosen = find_recipe(recipe, PREFERENCES, Tuning)
    asked = tune_command.adapted(chosen, method=method, epochs=epochs)
    request = tune_command.request_of(asked, base, data, held_out, on_bad_row, seed)
    say(tune_command.run(request, out, _work_of(out, work), pace, overwrite=overwrite), sys.stdout)


@app.command
@unfolded
def run(
    base: Path,
    dialogues: Annotated[tuple[str, ...], tyro.conf.arg(metavar="DIALOGUES...")],
    out: Path,
    preferences: Inputs = (),
    recipe: str = "korae",
    method: Maybe[Literal["lora", "qlora", "full"]] = None,
    template: Maybe[Literal["korae", "eeve", "kullm", "alpaca", "vicuna", "llama-2"]] = None,
    held_out: float = 0.05,
    pace: Fitted = PACE,
    on_bad_row: Literal["refuse", "skip"] = "refuse",
    work: Maybe[Path] = None,
    seed: int = 0,
) -> None:
    """From a base and data to a tuned checkpoint: data, SFT, DPO on preferences.

    Finished steps are passed over; killed, the same command goes on where it was.

    Several processes: torchrun -m train run ...

    Args:
        base: Checkpoint to tune.
        dialogues: As malmoi-train data reads them, or kept.jsonl of malmoi-train rate; of rated ones, those
            below the recipe's threshold are left out.
        out: Directory to write the last checkpoint to.
        preferences: As malmoi-train data reads them.
        recipe: korae, kollama2-lora, kollama2-qlora, kollama2-full, or my.module:COURSE.
        method: Adapters over 16 bits, adapters over 4 bits, or everything. Default: the recipe's.
        template: Chat format. Default: the recipe's.
        held_out: Share of what users say that is not trained on.
        on_bad_row: Stop at a row that holds no dialogue or preference, or leave it out and count it.
        work: Directory of the run so far. Default: OUT.work.
        seed: For the order of the data, and adapters.
    """
    _wait_without_spinning()
    from train.loop import say
    from train.recipe import Course
    from train.recipes import COURSES, find_recipe
    from train.tuning import course, tune_command

    chosen = find_recipe(recipe, COURSES, Course)
    request = course.Request(
        recipe=tune_command.adapted_course(chosen, method=method, template=template),
        base=base,
        dialogues=dialogues,
        preferences=preferences,
        held_out_share=held_out,
        on_bad_row=on_bad_row,
        seed=seed,
    )
    say(course.run(request, out, _work_of(out, work), pace), sys.stdout)


@app.command
@unfolded
def evaluate(
    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")],
    out: Path,
    name: Maybe[str] = None,
    korean: Inputs = (),
    english: Inputs = (),
    benchmarks: Inputs = (),
    shots: tuple[int, ...] = (0,),
    data: Maybe[Path] = None,
    prompts: Literal["harness", "polyglot"] = "harness",
    chat_template: bool = False,
    prompts_file: Inputs = (),
    limit: Maybe[int] = None,
    tokenizer: Maybe[Path] = None,
    key_file: Maybe[Path] = None,
    batch_size: Maybe[int] = None,
    text_field: str = "text",
    work: Maybe[Path] = None,
    seed: int = 1234,
    overwrite: bool = False,
) -> None:
    """Measure a model: bits per byte of texts, lm-evaluation-harness, how it chats.

    Ends in a directory for malmoi-train compare.

    Killed, the same command goes on where it was.

    Args:
        model: Directory of a checkpoint or an export, or the address of malmoi-serve or vLLM.
        out: Directory to write results.json and the items to.
        name: What it is called beside others. Default: the directory's name, or the server's.
        korean: Texts that were not trained on: files (text, JSONL, Parquet; also .gz, .zst), directories, globs
            in quotes, or hub:NAME[:SPLIT]. Each file is a domain.
        english: The same in English.
        benchmarks: The harness's names: kobest, haerae, kmmlu, mmlu, boolq, winogrande, hellaswag, or a task's.
        shots: Examples in a prompt; several numbers for several runs of each task.
        data: Directory of files for the benchmarks, TASK.SPLIT.jsonl[.gz] in the Hub's columns; KoBEST also as
            its authors publish it. Default: the Hub.
        prompts: Today's of the harness, or those of Polyglot-Ko's table (KoBEST).
        chat_template: Put the prompts through the model's chat template, examples as turns.
        prompts_file: Dialogues, as malmoi-train data reads them, whose first questions are answered.
        limit: Questions of a task, texts of a file, and dialogues, at most. Default: all, of dialogues 128.
        tokenizer: Directory of a server's tokenizer. Default: the one that the server names, if it is here.
        key_file: File with the key for a server. Default: the environment's OPENAI_API_KEY.
        batch_size: Rows of a benchmark that are read at once. Default: what fits.
        text_field: Field that holds the text.
        work: Directory of the run so far. Default: OUT.work.
        seed: For drawing examples; the harness's own by default.
        overwrite: Replace what is in OUT.
    """
    _wait_without_spinning()
    from train.evaluation.evaluation import run as run_evaluation
    from train.evaluation.request import Request
    from train.evaluation.results import RESULTS_FILE
    from train.tuning.rating.endpoint import read_key

    request = Request(
        model=model,
        name=name,
        korean=korean,
        english=english,
        text_field=text_field,
        benchmarks=benchmarks,
        shots=shots,
        data=data,
        prompts=prompts,
        is_chat=chat_template,
        questions=prompts_file,
        limit=limit,
        tokenizer=tokenizer,
        key=read_key(key_file),
        batch_size=batch_size,
        seed=seed,
    )
    run_evaluation(request, out, _work_of(out, work), overwrite=overwrite)
    print(out / RESULTS_FILE)


@app.command
@unfolded
def compare(
    results: Annotated[
        tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="DIR...", help_behavior_hint="")
    ],
    out: Path,
    published: Inputs = (),
    baseline: Maybe[str] = None,
    overwrite: bool = False,
) -> None:
    """Put results of malmoi-train evaluate side by side, differences tested.

    Args:
        results: Directories that malmoi-train evaluate wrote.
        out: Directory to write comparison.md and its plots to.
        published: Published models beside them: polyglot-ko-1.3b, eeve-10.8b, korae-13b, tedllm-8b, ...
        baseline: Name of the result that the others are compared with. Default: the first.
        overwrite: Replace what is in OUT.
    """
    from train.evaluation import page

    page.run(results, out, published=published, baseline=baseline, overwrite=overwrite)
    print(out / page.PAGE_FILE)


def _work_of(out: Path, work: Path | None) -> Path:
    """Where a run keeps what it can go on from: beside OUT, which may be "." or end in ".."."""
    if work is not None:
        return work
    place = out.resolve()
    return place.with_name(f"{place.name}.work")


def _wait_without_spinning() -> None:
    """A thread that waits for another must not spin: beside any other busy process it takes the core that the
    other needs, and a step took ten times as long. Read once, when torch is loaded.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


class _Folding:
    """Standard output with the first line of `--help` folded: tyro prints it as long as it is."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        if "usage:" in text:
            columns = shutil.get_terminal_size().columns
            text = textwrap.fill(text.replace(",", ", "), columns, subsequent_indent="    ")
        return self._stream.write(text)

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


def main() -> None:
    """Runs the command that the arguments name."""
    logging.basicConfig(format="%(name)s: %(message)s")
    for name in LOUD_AT_IMPORT:
        logging.getLogger(name).setLevel(logging.ERROR)
    is_asked = {"-h", "--help"} & set(sys.argv)
    shown = cast(TextIO, _Folding(sys.stdout)) if is_asked else sys.stdout
    with reported_in_one_line(), redirect_stdout(shown):
        app.cli(prog="malmoi-train", description=__doc__, config=CONFIG)


if __name__ == "__main__":
    main()
