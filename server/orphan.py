"""Ends vLLM's engine and worker processes when the server process that owns them dies, however it dies.

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
PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Entry point of the plugin; does nothing outside the children of malmoi-serve."""
    parent = multiprocessing.parent_process()
    if SERVED_BY not in os.environ or parent is None:
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent.pid:  # it died before the kernel was asked
        os._exit(1)
    os.setpgid(0, 0)
