"""The server in a process of its own, started again when it ends by itself: its engine dead or hung, or killed.

Whatever a server leaves behind is ended before the next is started: orphans of its processes come to this one.
"""

import ctypes
import logging
import os
import signal
import subprocess
import time
from collections import deque
from collections.abc import Sequence
from typing import Final

import psutil

from server.orphan import READY_FD, SUPERVISED_BY

logger = logging.getLogger(__name__)

FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 60.0
WINDOW_S: Final = 600.0
"""Restarts longer ago than that count neither for their bound nor for the pause before the next."""
INTERVAL_S: Final = 0.05
PR_SET_CHILD_SUBREAPER: Final = 36


class Supervisor:
    """Runs `command` until it ends well, is told to end, or has ended badly too often.

    max_restarts: in any WINDOW_S seconds. first_pause_s: in front of the first of them.
    """

    def __init__(self, command: Sequence[str], max_restarts: int, first_pause_s: float = FIRST_PAUSE_S) -> None:
        self._command = command
        self._max_restarts = max_restarts
        self._first_pause_s = first_pause_s
        self._restarts: deque[float] = deque()
        self._child: subprocess.Popen[bytes] | None = None
        self._is_ending = False

    def run(self) -> int:
        """The exit code of the last server; 128 and its number where a signal ended it.

        A server that never answered is not started again: what keeps it from starting is for a person to mend.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._end)
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
        has_answered = False
        while True:
            code, answered = self._run_once()
            has_answered = has_answered or answered
            if self._is_ending or code == 0 or not has_answered or not self._may_restart(code):
                return code

    def _run_once(self) -> tuple[int, bool]:
        """How one server ended, and whether it had answered before."""
        readable, writable = os.pipe()
        environment = {**os.environ, SUPERVISED_BY: str(os.getpid()), READY_FD: str(writable)}
        try:
            self._child = subprocess.Popen(
                self._command, env=environment, pass_fds=(writable,), start_new_session=True
            )
        finally:
            os.close(writable)
        with self._child as child:
            if self._is_ending:  # told so before there was a child to tell
                child.terminate()
            code = _wait(child)
            end_descendants()
        with os.fdopen(readable, "rb") as pipe:
            return code, pipe.read(1) != b""

    def _may_restart(self, code: int) -> bool:
        """Pauses in front of a restart, twice as long as before; False where there were too many."""
        now = time.monotonic()
        while self._restarts and now - self._restarts[0] > WINDOW_S:
            self._restarts.popleft()
        if len(self._restarts) >= self._max_restarts:
            logger.error("the server ended with %d; not started again: %d restarts", code, len(self._restarts))
            return False
        pause_s = min(LONGEST_PAUSE_S, self._first_pause_s * 2 ** len(self._restarts))
        self._restarts.append(now)
        logger.error("the server ended with %d; restart %d in %g s", code, len(self._restarts), pause_s)
        until = now + pause_s
        while time.monotonic() < until and not self._is_ending:
            time.sleep(INTERVAL_S)
        return not self._is_ending

    def _end(self, number: int, _frame: object) -> None:
        self._is_ending = True
        if self._child and self._child.returncode is None:
            self._child.send_signal(number)


def _wait(child: subprocess.Popen[bytes]) -> int:
    """The exit code of `child`, once it has ended; orphans that end meanwhile are reaped."""
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == child.pid:
            code = os.waitstatus_to_exitcode(status)
            child.returncode = code
            return code if code >= 0 else 128 - code


def end_descendants() -> None:
    """Kills every process below this one, and waits until they are gone."""
    while left := psutil.Process().children(recursive=True):
        for process in left:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return
