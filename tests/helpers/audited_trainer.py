"""A trainer that writes down what it sees, for tests of the real one.

Registered (see `audited`) as `trainer.v1.trainer_mode=longshort_audited`. It appends one JSON
line per step to $LONGSHORT_AUDIT (weights of both engines, what rows hold), and stops at the moment named by
$LONGSHORT_HALT_AT, so that a test can kill it exactly there.
"""

import hashlib
import json
import os
import time
import unicodedata
import uuid
from pathlib import Path
from typing import Any

import ray
import transfer_queue as tq
from longshort_reward.protocol import Role
from verl.trainer.ppo.v1 import register_trainer

from verl_longshort.verl_plugin.rollout.clients import tokenizer_of
from verl_longshort.verl_plugin.run.process_watch import actor_name
from verl_longshort.verl_plugin.trainer.pair_trainer import PairTrainer
from verl_longshort.verl_plugin.trainer.rows import read_extra_fields, split_by_role

FIELDS = ["prompts", "responses", "response_mask", "rollout_log_probs", "rm_scores"]


def note(**entry: Any) -> None:
    """Append one line to the audit file."""
    with Path(os.environ["LONGSHORT_AUDIT"]).open("a") as file:
        file.write(json.dumps(entry) + "\n")


def halt_at(moment: str) -> None:
    """Say that the moment has come, if the test asked for this one, and wait to be killed, unless it shall pass."""
    if os.environ.get("LONGSHORT_PASS_AT") == moment:
        note(halted=moment)
    if os.environ.get("LONGSHORT_HALT_AT") == moment:
        note(halted=moment)
        time.sleep(600)
        raise RuntimeError(f"nobody killed the run at {moment}")


@register_trainer("longshort_audited")
class AuditedPairTrainer(PairTrainer):
    """Moments of step N: rollout-N, learning-N, long-saved-N, policies-saved-N, committed-N, syncing-N, synced-N."""

    def on_init_end(self) -> None:
        super().on_init_end()
        note(start=self.global_steps, weights=self.weights())

    def _learn(self, policy: Any, *arguments: Any) -> Any:
        self.activity.now(self.global_steps, f"{policy.name} learns")
        halt_at(f"learning-{self.global_steps}")
        return super()._learn(policy, *arguments)

    def step(self, metrics: dict[str, Any], timing_raw: dict[str, float]) -> Any:
        batch = super().step(metrics, timing_raw)
        learners = list(self.schedule.learners(self.global_steps))
        rows = {str(role): self.look_at(role, rows) for role, rows in split_by_role(batch).items()}
        indices = sorted({x["record"]["problem"] for x in read_extra_fields(split_by_role(batch)[Role.LONG])})
        note(step=self.global_steps, learners=[str(r) for r in learners], rows=rows, problems=indices)
        return batch

    def prepare_step(self) -> dict[str, Any]:
        prepared = super().prepare_step()
        self.note_processes()
        halt_at(f"rollout-{self.global_steps}")
        return prepared

    def on_step_end(self) -> None:
        halt_at(f"committed-{self.global_steps}")
        self.activity.now(self.global_steps, "giving the engines their weights")
        halt_at(f"syncing-{self.global_steps}")
        super().on_step_end()
        note(synced=self.global_steps, weights=self.weights())
        halt_at(f"synced-{self.global_steps}")

    def _save_checkpoint(self) -> None:
        first, store = self.policy_of(Role.LONG), self.checkpoints.store
        commit = store.commit
        save_long = first.save

        def save_and_halt(step: int) -> None:
            save_long(step)
            halt_at(f"long-saved-{step}")

        def halt_and_commit(state: Any) -> None:
            halt_at(f"policies-saved-{state.step}")
            commit(state)

        first.save = save_and_halt  # type: ignore[method-assign]
        store.commit = halt_and_commit  # type: ignore[method-assign]
        try:
            super()._save_checkpoint()
        finally:
            first.save = save_long  # type: ignore[method-assign]
            store.commit = commit  # type: ignore[method-assign]

    def note_processes(self) -> None:
        """Write down which process is what, by now all of the run's."""
        workers = {i: what for policy in self.policies.values() for i, what in policy.workers().items()}
        actors = ray._private.state.actors().values()
        note(processes={actor_name(a, workers): a["Pid"] for a in actors if a["State"] == "ALIVE"})

    def weights(self) -> dict[str, list[str]]:
        """Fingerprints of the weights in every engine."""
        found = {}
        for name, policy in self.policies.items():
            servers = [s for replica in policy.llm_server_manager.get_replicas() for s in replica.servers]
            found[name] = [fingerprint(server) for server in servers]
        return found

    def look_at(self, role: Role, rows: Any) -> dict[str, Any]:
        """Counts of rows that break an invariant, and the largest difference of log-probs."""
        real = [i for i, tag in enumerate(rows.tags) if not tag.get("is_padding", False)]
        keys = [rows.keys[i] for i in real]
        data = tq.kv_batch_get(keys=keys, partition_id=rows.partition_id, select_fields=FIELDS)
        extra = tq.kv_batch_get(keys=keys, partition_id=rows.partition_id, select_fields=["extra_fields"])
        facts = [getattr(x, "data", x) for x in extra["extra_fields"]]
        policy = self.policy_of(role)
        tokenizer = tokenizer_of(policy.config.actor_rollout_ref.model)
        seen = [self.look_at_row(role, tokenizer, data, facts, i) for i in range(len(keys))]
        broken = {name: sum(not row[name] for row in seen) for name in seen[0]}
        learned = self._learned[policy.name][0].keys if policy.name in self._learned else []
        difference = self.logprob_difference(role, rows, [key for key in learned if key in set(keys)])
        own = sum(int(mask.sum()) for mask in data["response_mask"])
        return {"rows": len(keys), "broken": broken, "logprob_difference": difference, "own_tokens": own}

    def look_at_row(self, role: Role, tokenizer: Any, data: Any, facts: list[Any], i: int) -> dict[str, bool]:
        response, mask = data["responses"][i], data["response_mask"][i].bool()
        logprobs, scores = data["rollout_log_probs"][i], data["rm_scores"][i]
        own = [token for turn in facts[i]["own_turns"] for token in turn]
        said = [t["text"] for t in facts[i]["record"]["turns"] if t["role"] != role.value]
        heard = tokenizer.decode(response[~mask].tolist()) if (~mask).any() else ""
        last_own = int(mask.nonzero()[-1]) if mask.any() else len(mask) - 1
        return {
            "role": facts[i]["role"] == role.value,
            "own_tokens": response[mask].tolist() == own,
            "own_logprobs": bool((logprobs[mask] <= 0).all()),
            "masked_logprobs": bool((logprobs[~mask] == 0).all()),
            "partner_text": all(_squeeze(text) in _squeeze(heard) for text in said),
            "reward_place": not scores[[j for j in range(len(scores)) if j != last_own]].any(),
        }

    def logprob_difference(self, role: Role, rows: Any, keys: list[str]) -> float | None:
        """Largest |engine - actor| log-prob over own tokens of the rows that were learned from; None: none was."""
        if not keys:
            return None
        fields = ["response_mask", "rollout_log_probs", "old_log_probs"]
        data = tq.kv_batch_get(keys=keys, partition_id=rows.partition_id, select_fields=fields)
        worst = 0.0
        for mask, engine, actor in zip(
            data["response_mask"], data["rollout_log_probs"], data["old_log_probs"], strict=True
        ):
            chosen = mask.bool()
            if chosen.any():
                worst = max(worst, float((engine - actor)[chosen].abs().max()))
        return worst


def fingerprint(server: Any) -> str:
    """The checksum of an engine's weights; of one that tells none, that of a continuation with its log-probs."""
    if hasattr(server, "weights_checksum"):
        return str(ray.get(server.weights_checksum.remote()))
    sampling = {"temperature": 0.0, "max_tokens": 16, "ignore_eos": True, "logprobs": True}
    request = {"prompt_ids": [2, 9, 10, 11], "sampling_params": sampling, "request_id": uuid.uuid4().hex}
    made = ray.get(server.generate.remote(**request))
    return hashlib.sha256(repr((list(made.token_ids), list(made.log_probs))).encode()).hexdigest()


def _squeeze(text: str) -> str:
    return "".join(unicodedata.normalize("NFC", text).split())
