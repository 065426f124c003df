"""Reads files of joint trajectories and checks that one role can learn from them. Light: no torch."""

from collections.abc import Sequence
from pathlib import Path

from longshort_reward.errors import UserError
from longshort_reward.protocol import Role, parse_turn

from verl_longshort.base.files import Record, Records, read_records
from verl_longshort.data.records import Trajectory, validated

FILES_KEY = "data.train_files"


def load_trajectories(paths: str | Path | Sequence[str | Path], role: Role) -> Records[Trajectory]:
    """The records of all files in which `role` has a turn; none yet of files that an earlier stage will write.

    Raises UserError for a file that cannot be read, a turn that breaks the protocol, and when `role` has no
    turn.
    """
    files = [paths] if isinstance(paths, str | Path) else list(paths)
    parts = []
    for file in files:
        found = read_records(file, key=FILES_KEY, columns=("problem", "turns"))
        checked = [_checked(record, f"{file}, record {number}") for number, record in enumerate(found, start=1)]
        parts.append(Records(checked, expected=found.expected))
    records = Records.joined(parts)
    if not records:
        return records
    own = [record for record in records if any(turn.role == role for turn in record.turns)]
    if not own:
        raise UserError(FILES_KEY, ", ".join(map(str, files)), f"no record has a turn of the role '{role}'")
    return Records(own)


def _checked(record: Record, where: str) -> Trajectory:
    for number, turn in enumerate(record["turns"], start=1):
        if not isinstance(turn, dict) or not {"role", "text"} <= turn.keys():
            raise UserError(FILES_KEY, where, f"turn {number} must be {{'role': ..., 'text': ...}}")
        if turn["role"] not in tuple(Role):
            raise UserError(FILES_KEY, where, f"turn {number} has the role '{turn['role']}', not long or short")
        parsed = parse_turn(Role(turn["role"]), turn["text"])
        if not parsed.ok:
            raise UserError(FILES_KEY, where, f"turn {number} breaks the protocol ({parsed.fault}): correct it")
    return validated(record, Trajectory, FILES_KEY, where)
