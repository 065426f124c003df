"""Runs the commands of a stage that has several, one after the other, and ends with the status of the first to fail.

How far it came is noted in a file, so that a stage that was killed or failed goes on with the command it was at: what
that command resumes, such as a training, was begun with what the commands before it left.

python -m verl_longshort.recipe.sequence '[["longshort", "sft", ...], ["longshort", "train", ...]]'
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from verl_longshort.base.files import write_json

NOTE_VARIABLE, OUTPUTS_VARIABLE = "LONGSHORT_SEQUENCE_NOTE", "LONGSHORT_SEQUENCE_OUTPUTS"
"""The file of the note, and the stage's outputs as a JSON list; without them every command is run."""


def run_sequence(commands: Sequence[Sequence[str]], note: Path | None = None, outputs: Sequence[Path] = ()) -> int:
    """0, or the exit status of the first command that failed; those after it are not run.

    With a `note`, the commands that it says were done are left out, unless something that they left of the `outputs`
    is gone.
    """
    for number, command in enumerate(commands):
        if note is not None and number < _done(note):
            continue
        status = subprocess.run(command, check=False).returncode
        if status:
            return status
        if note is not None:
            write_json(note, {"done": number + 1, "left": [str(path) for path in outputs if path.exists()]})
    return 0


def _done(note: Path) -> int:
    if not note.exists():
        return 0
    noted = json.loads(note.read_text(encoding="utf-8"))
    return int(noted["done"]) if all(Path(path).exists() for path in noted["left"]) else 0


if __name__ == "__main__":
    given = os.environ.get(NOTE_VARIABLE)
    made = [Path(path) for path in json.loads(os.environ.get(OUTPUTS_VARIABLE, "[]"))]
    sys.exit(run_sequence(json.loads(sys.argv[1]), Path(given) if given else None, made))
