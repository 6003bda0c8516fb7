"""One evaluation for every checkpoint: what can be wrong is looked at first, then the model is asked."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from malmoi.errors import RecipeError
from malmoi.files import create_directory, refuse_existing, sole_writer
from malmoi.provenance import library_versions
from malmoi.repetition import MAX_NEW_TOKENS
from malmoi.speed import Speed
from train.corpus.running import full_disk_told
from train.evaluation import language, results
from train.evaluation.benchmarks import group_score, task_part
from train.evaluation.chat import Prompt, chat_of, prompts_digest, read_prompts
from train.evaluation.language import Document
from train.evaluation.loading import memory_told
from train.evaluation.parts import Parts, Record
from train.evaluation.request import Request
from train.evaluation.results import LANGUAGES, Chat, Language, LanguageReading, Results, Score
from train.evaluation.subject import Subject
from train.evaluation.tasks import Suite, find_suite
from train.loop import say

LIBRARIES: Final = (
    "malmoi",
    "torch",
    "transformers",
    "tokenizers",
    "datasets",
    "lm_eval",
    "gptqmodel",
    "bitsandbytes",
)
Items = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """What the model is asked, all of it read."""

    documents: Mapping[Language, Sequence[Document]]
    prompts: Sequence[Prompt]
    suite: Suite | None


def run(request: Request, out: Path, work: Path, *, overwrite: bool = False) -> Results:
    """Finds out all that is asked, and writes it into `out`; parts that are finished are kept in `work`.

    Raises: CheckpointError, ServeError for a model that cannot be asked; CorpusError for texts or rows that
    cannot be; RecipeError for what is asked amiss; OutputError.
    """
    refuse_existing(
        out, overwrite, inputs=(request.model, *request.korean, *request.english, *request.questions)
    )
    subject = open_subject(request)
    _check_template(request, subject)
    material = read_material(request)
    with sole_writer(work), full_disk_told(work), memory_told(subject.model):
        parts = Parts(work, {"model": subject.identity, "versions": library_versions(*LIBRARIES)})
        found, items = _found(request, subject, material, parts)
        with create_directory(out, overwrite=overwrite) as partial:
            for name, lines in items.items():
                results.write_items(partial, name, lines)
            results.write(partial, found)
    return found


def open_subject(request: Request) -> Subject:
    """The model, not yet loaded."""
    if request.is_served:
        from train.evaluation.served import ServedModel

        return ServedModel(request.model, request.tokenizer, request.key)
    from train.evaluation.local import LocalModel

    if request.tokenizer is not None:
        raise RecipeError(
            "--tokenizer",
            expected="a model behind an address",
            found=f"{request.model}, which has its own",
            next_step="leave it out",
        )
    return LocalModel(Path(request.model))


def _check_template(request: Request, subject: Subject) -> None:
    option = "--prompts-file" if request.questions else "--chat-template"
    if (request.questions or request.is_chat) and not subject.tokenizer.chat_template:
        raise RecipeError(
            option,
            expected="a chat model",
            found=f"{request.model}, which has no chat template",
            next_step=f"leave {option} out",
        )


def read_material(request: Request) -> Material:
    """Everything that is asked. Raises: CorpusError, RecipeError."""
    return Material(
        documents={
            name: language.read_documents(f"--{name}", request.texts(name), request.text_field, request.limit)
            for name in LANGUAGES
            if request.texts(name)
        },
        prompts=read_prompts(request.questions, request.limit) if request.questions else (),
        suite=find_suite(request) if request.benchmarks else None,
    )


def _found(
    request: Request, subject: Subject, material: Material, parts: Parts
) -> tuple[Results, dict[str, Items]]:
    """All results, and the items by the names of their files."""
    readings: dict[Language, LanguageReading | None] = dict.fromkeys(LANGUAGES)
    items: dict[str, Items] = {}
    for name, documents in material.documents.items():
        part = _language_part(name, documents, subject, parts)
        readings[name] = LanguageReading.from_record(part["reading"])
        items[f"{results.ITEMS_FOLDER}/language-{name}.jsonl"] = part["items"]
    benchmarks, notes = (
        _benchmarks(request, subject, material.suite, parts, items) if material.suite else ({}, [])
    )
    found = Results(
        name=request.name or subject.name,
        model=subject.model,
        digest=subject.digest,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        seed=request.seed,
        versions=library_versions(*LIBRARIES),
        language=readings,
        benchmarks=benchmarks,
        chat=_chat(material.prompts, subject, parts) if material.prompts else None,
        speed=_speed(material, subject),
        notes=tuple(notes),
    )
    return found, items


def _language_part(name: str, documents: Sequence[Document], subject: Subject, parts: Parts) -> Record:
    """`reading` and `items` of a language."""

    def find() -> Record:
        passages = language.passages_of(documents, subject.tokenizer)
        say(f"{name}: {sum(len(passage.ids) for passage in passages):,} tokens of {len(passages):,} texts")
        nats = language.nats_of(passages, subject)
        reading = language.language_reading(passages, nats)
        return {"reading": reading.to_record(), "items": language.items_of(passages, nats)}

    return parts.get(f"language-{name}", {"texts": language.digest_of(documents)}, find)


def _benchmarks(
    request: Request, subject: Subject, suite: Suite, parts: Parts, items: dict[str, Items]
) -> tuple[dict[str, dict[int, Score]], list[str]]:
    """All scores, and what should be known of them; items are added to those that are there."""
    scores: dict[str, dict[int, Score]] = {}
    notes: list[str] = []
    every_shots = tuple(dict.fromkeys(request.shots))
    for name, benchmark in suite.benchmarks.items():
        notes += [benchmark.note] if benchmark.note else []
        scores[name] = {}
        for shots in every_shots:
            part = task_part(name, benchmark, shots, request, subject, parts)
            scores[name][shots] = results.score_of(part["score"])
            items[part["score"]["items"]] = part["items"]
            notes += part["notes"]
    for group, tasks in suite.groups.items():
        aggregates = suite.aggregates(group)
        if aggregates:
            scores[group] = {
                shots: group_score([scores[task][shots] for task in tasks], aggregates) for shots in every_shots
            }
    return scores, notes


def _chat(prompts: Sequence[Prompt], subject: Subject, parts: Parts) -> Chat:
    def find() -> Record:
        say(f"chat: {len(prompts):,} prompts")
        answers = subject.answers(prompts, MAX_NEW_TOKENS)
        tokenizer = subject.tokenizer

        def encode(text: str) -> Sequence[int]:
            ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
            return ids

        return asdict(chat_of(prompts, answers, encode))

    return Chat(
        **parts.get("chat", {"prompts": prompts_digest(prompts), "max_new_tokens": MAX_NEW_TOKENS}, find)
    )


def _speed(material: Material, subject: Subject) -> Speed | None:
    """Of a server, from openings of the Korean texts, or of the English ones."""
    texts = [document.text for documents in material.documents.values() for document in documents]
    return subject.speed(texts[: language.NUM_OPENINGS]) if texts else None
