"""What is on a leash ends with the process that holds it, however that ends."""

import subprocess
import sys
from pathlib import Path

import psutil

from tests.support.running_server import wait_until_gone

ROOT = Path(__file__).parents[2]
HOLDER = """
import subprocess, sys, time
from quant.leash import leashed
command = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]
subprocess.Popen(leashed(command), start_new_session=True)
time.sleep(600)
"""


def test_it_ends_with_a_process_that_is_killed() -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "up\n"
    held = psutil.Process(holder.pid).children(recursive=True)
    assert held
    holder.kill()
    holder.communicate()
    assert not wait_until_gone(held, 30)
