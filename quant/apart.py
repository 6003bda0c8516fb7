"""A call in a process of its own, for libraries that leave threads and temporary files, or end their host.

The process ends with the one that started it, however that ends. It says what it has to say on the same stderr.
"""

import os
import pickle
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from malmoi.errors import MalmoiError
from quant.quiet import set_up_logging

STOP_S: Final = 5.0
"""Between Ctrl-C and kill."""


class EndedError(Exception):
    """The process ended before it answered; the message says how."""


def call(function: str, *arguments: object, environment: Mapping[str, str]) -> Any:
    """What `my.module:function` returns of the arguments, or raises; both are pickled.

    `environment`: variables that it gets where this process has none of that name.

    Raises: EndedError if the process ends without an answer.
    """
    package = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
    reading, writing = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-P", "-W", "ignore", "-m", "quant.apart", str(writing)],
        env={**environment, **os.environ, "PYTHONPATH": package},
        stdin=subprocess.PIPE,  # closed when this process ends: how the other one learns of it
        pass_fds=[writing],
        start_new_session=True,  # Ctrl-C is passed on below
    )
    os.close(writing)
    assert process.stdin is not None
    with process.stdin, os.fdopen(reading, "rb") as answers:
        try:
            with suppress(BrokenPipeError):  # it ended before it was asked
                pickle.dump((function, arguments), process.stdin)
                process.stdin.flush()
            answer = answers.read()
            process.wait()
        except BaseException:
            _stop(process)
            raise
    if not answer:
        raise EndedError(_how(process.returncode))
    kind, what = pickle.loads(answer)
    if kind == "error":
        raise what
    return what


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Lets it clean up behind itself, for a while."""
    process.send_signal(signal.SIGINT)
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _how(code: int) -> str:
    if code >= 0:
        return f"exit {code}"
    memory = ": was there memory enough?" if code == -signal.SIGKILL else ""
    return f"ended by {signal.Signals(-code).name}{memory}"


def _answer(channel: int) -> None:
    """What the other process does."""
    set_up_logging()
    function, arguments = pickle.load(sys.stdin.buffer)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    module, _, name = function.partition(":")
    code = 0
    try:
        answer = pickle.dumps(("result", getattr(import_module(module), name)(*arguments)))
    except KeyboardInterrupt:
        os._exit(1)
    except Exception as error:
        if not isinstance(error, MalmoiError):
            traceback.print_exc()
        answer, code = pickle.dumps(("error", _portable(error))), 1
    with os.fdopen(channel, "wb") as answers:
        answers.write(answer)
    sys.stderr.flush()
    os._exit(code)  # threads of libraries may never end


def _portable(error: Exception) -> Exception:
    """The error, or one in its words where it does not survive pickling."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # of any kind: libraries' errors take arguments that they do not keep
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(1)


if __name__ == "__main__":
    _answer(int(sys.argv[1]))
