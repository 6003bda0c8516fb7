"""python3 -m tests.docs.follow PAGE...: runs every command block of the pages, as written, where it is called.

For a fresh clone: it needs nothing installed. Each block and its seconds are told on standard error.
"""

import sys
import time
from pathlib import Path

from tests.support.pages import Follower, blocks


def main(pages: list[str]) -> None:
    """Runs them."""
    with Follower(Path.cwd()) as follower:
        for page in pages:
            for block in blocks(Path(page)):
                if block.language not in ("bash", "python"):
                    continue
                print(f"--- {page}:{block.line}\n{block.text}", end="", file=sys.stderr, flush=True)
                started = time.monotonic()
                follower.run(block)
                print(f"--- {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
