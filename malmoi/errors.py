"""Every error a user can cause, and how a command reports it.

    MalmoiError
    ├── CheckpointError      a checkpoint directory breaks the contract of malmoi.checkpoint
    │   └── LockError        tokenizer, template, eos or golden prompt are not the ones trained with
    ├── ChatError            a conversation the chat format cannot render
    ├── CorpusError          text that cannot be read
    ├── ExportError          a checkpoint that cannot be quantized as it was asked for
    ├── OutputError          a result that cannot be written where it was asked for
    ├── RecipeError          a recipe, or an option of a command, that cannot be run
    ├── ReleaseError         an export that must not go out, or a release that is not what was signed
    ├── ServeError           a server that cannot start, or that stopped on its own
    │   └── EngineError      its engine died or hangs: nothing to mend, it may be started again
    └── TrainingError        training that cannot go on: a loss that is no number, memory that ran out

A message is one line: where, what was expected, what was found, and the next step.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import ClassVar

EXIT_FAILURE = 1
EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130


class MalmoiError(Exception):
    """An error that the user can mend; its text is one line."""

    exit_code: ClassVar[int] = EXIT_USER_ERROR
    """Of the command that ends with it."""

    def __init__(self, where: object, *, expected: str, found: str, next_step: str) -> None:
        self.where = str(where)
        self.expected = expected
        self.found = found
        self.next_step = next_step
        super().__init__(where, expected, found, next_step)

    def __reduce__(self) -> tuple[Callable[[], "MalmoiError"], tuple[()]]:
        """How it travels from a worker process; an exception's own way knows of no keywords."""
        what = {"expected": self.expected, "found": self.found, "next_step": self.next_step}
        return partial(type(self), self.where, **what), ()

    def __str__(self) -> str:
        text = f"{self.where}: expected {self.expected}, found {self.found}; {self.next_step}"
        return " ".join(text.split())


class CheckpointError(MalmoiError):
    """A checkpoint directory breaks the contract."""


class LockError(CheckpointError):
    """The tokenizer, template, eos or golden prompt is not the one the checkpoint was made with."""


class ChatError(MalmoiError):
    """A conversation that the chat format cannot render."""


class CorpusError(MalmoiError):
    """A corpus, or a line of it, that cannot be read."""


class ExportError(MalmoiError):
    """A checkpoint that cannot be quantized as it was asked for."""


class OutputError(MalmoiError):
    """A result that cannot be written where it was asked for."""


class RecipeError(MalmoiError):
    """A recipe, or an option of a command, that cannot be run."""


class ReleaseError(MalmoiError):
    """An export that must not go out as it is, or a release that is not what was signed."""


class ServeError(MalmoiError):
    """A server that cannot start, or that stopped on its own."""


class EngineError(ServeError):
    """A server whose engine died or hangs: as it was asked for it did serve, so it may be started again."""

    exit_code = EXIT_FAILURE


class TrainingError(MalmoiError):
    """Training that cannot go on."""


@contextmanager
def reported_in_one_line() -> Iterator[None]:
    """Ends the process as a command should: one line and, of most kinds, exit 2 for a MalmoiError.

    Ctrl-C exits 130 without a traceback. Anything else is our bug and keeps its traceback (exit 1).
    """
    try:
        yield
    except MalmoiError as error:
        with suppress(OSError):  # where standard error cannot be written the exit code still tells
            print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    except KeyboardInterrupt:
        with suppress(OSError):
            print("interrupted", file=sys.stderr)
        raise SystemExit(EXIT_INTERRUPTED) from None
