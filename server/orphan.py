"""Between the processes of a server: when one dies, however it dies, those below it end.

vLLM's engine outlives a killed API process. It does load every `vllm.general_plugins` entry point in each
process it starts, so this one asks the kernel to kill the process together with its parent, and leaves the
group that a terminal sends Ctrl-C to: the answers that are running are to be finished first.
"""

import ctypes
import multiprocessing
import os
import signal

SERVED_BY = "MALMOI_SERVE_PID"
"""Set by malmoi-serve for its children, so that a plain `vllm serve` is left as it is."""
SUPERVISED_BY = "MALMOI_SUPERVISOR_PID"
"""Set by server.supervisor for the server it starts."""
READY_FD = "MALMOI_READY_FD"
"""Set by server.supervisor: where its server writes a byte once it answers."""
PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Entry point of the plugin; does nothing outside the children of malmoi-serve."""
    parent = multiprocessing.parent_process()
    if SERVED_BY not in os.environ or parent is None:
        return
    _die_with(parent.pid)
    os.setpgid(0, 0)


def die_with_supervisor() -> None:
    """To be called first in a server; does nothing in one without a supervisor."""
    if SUPERVISED_BY in os.environ:
        _die_with(int(os.environ[SUPERVISED_BY]))


def tell_supervisor() -> None:
    """To be called once the server answers; does nothing in one without a supervisor."""
    if READY_FD in os.environ:
        with os.fdopen(int(os.environ.pop(READY_FD)), "wb") as pipe:
            pipe.write(b"1")


def _die_with(parent: int | None) -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the kernel was asked
        os._exit(1)
