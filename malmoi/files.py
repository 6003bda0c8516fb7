"""Files and directories that are there whole or not at all, whenever the process is killed."""

import errno
import fcntl
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from malmoi.errors import OutputError

PARTIAL_SUFFIX: Final = ".partial"
REPLACED_SUFFIX: Final = ".replaced"


def write_whole(file: Path, content: str) -> None:
    """Writes a text file, in UTF-8, beside its place and renames it."""
    partial = file.with_name(file.name + PARTIAL_SUFFIX)
    partial.write_text(content, encoding="utf-8")
    partial.replace(file)


@contextmanager
def create_directory(out: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A directory to write files into; on leaving, it becomes `out`.

    The files are written to `out.partial`. When the block fails, nothing is left; when the process is
    killed, `out.partial` is left, which the next run replaces.

    Raises: OutputError if `out` exists and not `overwrite`, another run is writing it, it may not be
    written, or the disk is full.
    """
    partial = _beside(out, PARTIAL_SUFFIX)
    with ExitStack() as writing:
        refuse_existing(out, overwrite)
        with writable(out):
            writing.callback(os.close, _lock(partial))
            for leftover in partial.iterdir():  # of a run that was killed
                shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
        try:
            yield partial
            refuse_existing(out, overwrite)
            _replace(partial, out)
        except Exception as error:
            if not tells_of_full_disk(error):
                raise
            raise OutputError(
                partial,
                expected="room for all of it",
                found="a full disk",
                next_step="free some space, or write to another disk; nothing was left behind",
            ) from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def tells_of_full_disk(error: BaseException) -> bool:
    """Whether that is why writing failed, in the words of the system, of safetensors or of torch."""
    numbers = (errno.ENOSPC, errno.EDQUOT)
    if isinstance(error, OSError):
        return error.errno in numbers
    signs = ("inline_container.cc", *(f"(os error {number})" for number in numbers))
    return any(sign in str(error) for sign in signs)


def refuse_existing(out: Path, overwrite: bool, *, inputs: Iterable[Path | str] = ()) -> None:
    """To be asked before the work is done. `inputs`: what the work reads; globs may be among them.

    Raises: OutputError if `out` is there and may not be replaced, nothing can be made where it would be, or it
    is one of the inputs or above one, which would be removed with it.
    """
    for read in inputs:
        if Path(read).resolve().is_relative_to(out.resolve()):
            raise OutputError(
                out,
                expected="a directory apart from what is read",
                found=f"the place of {read}",
                next_step="choose another",
            )
    replaced = _beside(out, REPLACED_SUFFIX)
    with writable(out):
        if replaced.exists() and not out.exists():  # killed between the two renames of _replace
            replaced.rename(out)
        if out.exists() and not overwrite:
            raise OutputError(
                out,
                expected="a new directory",
                found="one that exists",
                next_step="choose another, or --overwrite",
            )
        above = next(folder for folder in out.absolute().parents if folder.exists())
        if not above.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if not os.access(above, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


@contextmanager
def sole_writer(directory: Path) -> Iterator[None]:
    """Makes `directory`, and keeps every other process that asks from writing it; one that dies lets go.

    Raises: OutputError if another is writing it, or it may not be written.
    """
    with writable(directory):
        descriptor = _lock(directory)
    try:
        yield
    finally:
        os.close(descriptor)


def _beside(out: Path, suffix: str) -> Path:
    place = out.absolute()  # "." has no name of its own
    return place.with_name(place.name + suffix)


def _lock(directory: Path) -> int:
    """Makes `directory` and locks it; the lock holds until the descriptor that is returned is closed."""
    directory.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise OutputError(
            directory,
            expected="no other run writing it",
            found="one that is",
            next_step="wait for it, or write elsewhere",
        ) from None
    return descriptor


@contextmanager
def writable(place: Path) -> Iterator[None]:
    """Raises OutputError where the system does not let us."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            place,
            expected="a place that can be written",
            found=error.strerror or str(error),
            next_step="choose another",
        ) from error


def _replace(partial: Path, out: Path) -> None:
    """Renames `partial` to `out`; what `out` was before is removed last."""
    umask = os.umask(0)
    os.umask(umask)
    for file in filter(Path.is_file, partial.rglob("*")):
        file.chmod(0o666 & ~umask)  # safetensors writes 0600; others may be meant to read a checkpoint
        descriptor = os.open(file, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
    replaced = _beside(out, REPLACED_SUFFIX)
    if out.exists():
        shutil.rmtree(replaced, ignore_errors=True)
        out.rename(replaced)
    partial.rename(out)
    shutil.rmtree(replaced, ignore_errors=True)
