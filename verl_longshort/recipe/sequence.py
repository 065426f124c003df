"""Runs the commands of a stage that has several, one after the other, and ends with the status of the first to fail.

python -m verl_longshort.recipe.sequence '[["longshort", "eval", ...], ["longshort", "table", ...]]'
"""

import json
import subprocess
import sys


def run_sequence(commands: list[list[str]]) -> int:
    """0, or the exit status of the first command that failed; those after it are not run."""
    for command in commands:
        status = subprocess.run(command, check=False).returncode
        if status:
            return status
    return 0


if __name__ == "__main__":
    sys.exit(run_sequence(json.loads(sys.argv[1])))
