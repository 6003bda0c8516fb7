"""A command that ends with the process that started it, however that ends: -m quant.leash PID COMMAND."""

import ctypes
import os
import signal
import sys
from typing import Final

PR_SET_PDEATHSIG: Final = 1


def leashed(command: list[str]) -> list[str]:
    """The command on a leash of this process; to be started by a thread that does not end before."""
    return [sys.executable, "-P", "-m", "quant.leash", str(os.getpid()), *command]


if __name__ == "__main__":
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # kept over exec
    if os.getppid() != int(sys.argv[1]):  # it died before the kernel was asked
        os._exit(1)
    os.execv(sys.argv[2], sys.argv[2:])
