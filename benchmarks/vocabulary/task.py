"""One task as a process: python -m benchmarks.vocabulary.task NAME '{...}' prints its result as JSON.

Imports the tasks only when it is the main program: workers that a task starts import this module again.
"""

import json
import sys

if __name__ == "__main__":
    from benchmarks.vocabulary.tasks import TASKS

    print(json.dumps(TASKS[sys.argv[1]](**json.loads(sys.argv[2]))))
