"""What the command prints, where it cannot be printed."""

import subprocess
import sys
from pathlib import Path


def test_url_on_a_full_disk_is_a_line_and_no_end() -> None:
    say = [sys.executable, "-c", "from server.__main__ import say; say('malmoi serves')"]
    with Path("/dev/full").open("wb") as full_disk:
        ended = subprocess.run(say, check=False, stdout=full_disk, stderr=subprocess.PIPE, text=True)
    assert ended.returncode == 0
    assert ended.stderr == "standard output: [Errno 28] No space left on device\n"
