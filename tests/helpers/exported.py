"""A run of a pair as the trainer leaves it, and its export, of the tiny models of `word_models`."""

import json
from pathlib import Path
from typing import Any

import torch
from longshort_reward.protocol import ROLES, Role, RolePrompts
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from helpers.word_models import FOLLOWING, save_model
from verl_longshort.base.checkpoint import CheckpointStore, PairState, Validation
from verl_longshort.base.policy_record import POLICY_FILE, policy_record
from verl_longshort.base.stage import execute
from verl_longshort.core.policies import TIED, players
from verl_longshort.stages.export import ExportStage

PROMPTS = RolePrompts(long="", short="")
LIMITS = {"max_turns": 4, "long_turn_tokens": 60, "short_turn_tokens": 40, "token_budget": 100}


def write_run(
    root: Path, *, steps: tuple[int, ...] = (1, 2), environment: bool = True, tied: bool = False
) -> CheckpointStore:
    """Checkpoints of a run, below `root`; its start lies in `root/start`.

    The short policy never learned; of a run that is `tied` there is one policy.
    """
    store = CheckpointStore(root / "pair")
    starts = {role: save_model(root / "start" / role, FOLLOWING[role]) for role in ROLES}
    for step in steps:
        actor = store.policy_folder(TIED if tied else Role.LONG, step) / "actor"
        folder = save_model(actor / "huggingface", FOLLOWING["long"])
        record = policy_record(Role.LONG, PROMPTS, base=str(starts[Role.LONG]))
        (folder / POLICY_FILE).write_text(json.dumps(record))
        (actor / "model_world_size_1_rank_0.pt").write_bytes(b"x")
        store.pair_folder(step).mkdir(parents=True)
        (store.pair_folder(step) / "data.pt").write_bytes(b"x")
        state = PairState(
            step=step,
            schedule=["both", "both"] if tied else ["long", "short"],
            steps_per_round=1,
            data={"train": {"data.train_files": "9 problems (abc)", "data.shuffle": True}},
            policies={name: {"path": str(starts[roles[0]])} for name, roles in players(tied=tied).items()},
            environment={**LIMITS, "prompts": vars(PROMPTS)} if environment else {},
        )
        store.commit(state)
    return store


def choose_best(store: CheckpointStore, step: int) -> None:
    """Let `best.json` name a step."""
    best = Validation(step=step, accuracy=0.75, tokens=12.5, accuracy_interval=(0.5, 0.9))
    store.write_best(Validation(step=0, accuracy=0.5, tokens=20.0), best, {})


def write_adapter(base: Path, folder: Path) -> Path:
    """An adapter of LoRA with the files that a run leaves beside it."""
    torch.manual_seed(0)
    lora = LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), lora)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    model.save_pretrained(folder, save_embedding_layers=False)
    for file in base.iterdir():
        if file.suffix != ".safetensors":
            (folder / file.name).write_bytes(file.read_bytes())
    return folder


def export(*overrides: str) -> Any:
    """`longshort export`."""
    return execute(ExportStage(), overrides=list(overrides))


def exported(root: Path) -> Path:
    """A pair that `longshort export` wrote from a run."""
    choose_best(write_run(root), 2)
    export(f"longshort.run={root}", f"longshort.output_dir={root / 'my-pair'}")
    return root / "my-pair"
