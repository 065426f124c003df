"""Reads files of joint trajectories and checks that one role can learn from them. Light: no torch."""

from collections.abc import Sequence
from pathlib import Path

from longshort_reward.errors import UserError
from verl_longshort.base.files import Record, read_records
from longshort_reward.protocol import Role, parse_turn

FILES_KEY = "data.train_files"
COLUMNS = ("problem", "turns")


def load_trajectories(paths: str | Path | Sequence[str | Path], role: Role) -> list[Record]:
    """The records of all files in which `role` has a turn.

    Raises UserError for a file that cannot be read, a turn that breaks the protocol, and when `role` has no
    turn.
    """
    files = [paths] if isinstance(paths, str | Path) else list(paths)
    records = []
    for file in files:
        for number, record in enumerate(read_records(file, key=FILES_KEY, columns=COLUMNS), start=1):
            _check_turns(record, f"{file}, record {number}")
            records.append(record)
    own = [record for record in records if any(turn["role"] == role for turn in record["turns"])]
    if not own:
        raise UserError(FILES_KEY, ", ".join(map(str, files)), f"no record has a turn of the role '{role}'")
    return own


def _check_turns(record: Record, where: str) -> None:
    for number, turn in enumerate(record["turns"], start=1):
        if not isinstance(turn, dict) or not {"role", "text"} <= turn.keys():
            raise UserError(FILES_KEY, where, f"turn {number} must be {{'role': ..., 'text': ...}}")
        if turn["role"] not in tuple(Role):
            raise UserError(
                FILES_KEY, where, f"turn {number} has the role '{turn['role']}', not long or short"
            )
        parsed = parse_turn(Role(turn["role"]), turn["text"])
        if not parsed.ok:
            raise UserError(
                FILES_KEY, where, f"turn {number} breaks the protocol ({parsed.fault}): correct it"
            )
