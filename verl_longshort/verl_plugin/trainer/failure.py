"""The report on a run that lost a node or a process: what died, what it was doing, and how to resume."""

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from verl_longshort.base.checkpoint import CheckpointStore
from verl_longshort.base.errors import RunDiedError
from verl_longshort.verl_plugin.trainer.activity import Activity, read
from verl_longshort.verl_plugin.trainer.cluster import VARIABLE


@dataclass(frozen=True, kw_only=True)
class LostNode:
    """A node that died: Ray's id, a readable name, and the reason that Ray gives."""

    id: str
    name: str
    reason: str


def node_failure(nodes: Sequence[LostNode], root: Path, command: Sequence[str], address: str) -> RunDiedError:
    """The error for a run in the folder `root` under which `nodes` died."""
    activity = read(root)
    names = ", ".join(node.name for node in nodes)
    held = [part for node in nodes for part in (activity.on_node(node.id) if activity else [])]
    reasons = "; ".join(dict.fromkeys(node.reason for node in nodes if node.reason))
    lines = {
        "on it": ", ".join(held) or "no worker rank; other processes of the run",
        "Ray says": reasons or "nothing about why",
        "last checkpoint": _last(root),
        "to resume": f"`ray start --address={address}` on that node or one in its place, then again:",
    }
    return _failure(f"node {names} of the Ray cluster died {_while(activity)}", lines, command)


def process_failure(error: Exception, root: Path, command: Sequence[str]) -> RunDiedError:
    """The error for a run of which a process died and its node did not."""
    lines = {
        "Ray says": " ".join(str(error).split()),
        "last checkpoint": _last(root),
        "to resume": "if it was killed for its memory, lower micro batches or max_num_seqs; then again:",
    }
    return _failure(f"a process of the run died {_while(read(root))}", lines, command)


def _failure(headline: str, lines: dict[str, str], command: Sequence[str]) -> RunDiedError:
    width = max(map(len, lines)) + 1
    body = [f"  {name + ':':<{width}} {text}" for name, text in lines.items()]
    return RunDiedError("\n".join([headline, *body, f"    {_again(command)}"]))


def _while(activity: Activity | None) -> str:
    if activity is None:
        return "before a step had begun"
    return f"in step {activity.step} of {activity.total}: {activity.doing}"


def _last(root: Path) -> str:
    step = CheckpointStore(root).latest()
    return f"none in {root}; the run begins anew" if step is None else f"step {step} in {root}"


def _again(command: Sequence[str]) -> str:
    if not command:
        return "the same command"
    address = os.environ.get(VARIABLE)
    return (f"{VARIABLE}={shlex.quote(address)} " if address else "") + shlex.join(command)
