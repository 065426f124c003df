"""Makes some trajectories fail, for tests of what a run does about them.

`$LONGSHORT_FAIL_PER_MILLE` of the sessions lose their engine's answer, always the same ones: a session is chosen by the
seed of its sampling. Loaded by `audited` in every process of a run.
"""

import os
from typing import Any

from verl_longshort.core.trajectory import Generation
from verl_longshort.verl_plugin.rollout.clients import ServedPolicy

VARIABLE = "LONGSHORT_FAIL_PER_MILLE"


def fail_some() -> None:
    """Do it, if the variable says so."""
    per_mille = int(os.environ.get(VARIABLE, "0"))
    generate = ServedPolicy.__call__

    async def sometimes(self: ServedPolicy, *, sampling: dict[str, Any], **request: Any) -> Generation:
        if sampling["seed"] % 1000 < per_mille:
            raise RuntimeError("made to fail")
        return await generate(self, sampling=sampling, **request)

    if per_mille:
        ServedPolicy.__call__ = sometimes  # type: ignore[method-assign]
