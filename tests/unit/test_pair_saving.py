"""What the pair's trainer saves, shares, deletes and chooses: its own methods on policies without a model."""

import errno
import json

import pytest
import torch
import verl.trainer.ppo.v1  # noqa: F401  # it loads the trainers
from helpers.harness import write_model
from helpers.pair_runs import PairRun
from longshort_reward.protocol import DEFAULT_PROMPTS, ROLES, Role
from omegaconf import OmegaConf
from ray.exceptions import RayTaskError

from verl_longshort.base.checkpoint import CheckpointStore
from verl_longshort.base.errors import RunStoppedError, UnwrittenError
from verl_longshort.config.pair import settings_of
from verl_longshort.core.environment import Limits
from verl_longshort.core.schedule import Schedule
from verl_longshort.verl_plugin.checks.resume import Resume
from verl_longshort.verl_plugin.launch import checked_config
from verl_longshort.verl_plugin.run.stop import StopFile
from verl_longshort.verl_plugin.run.unsaved import explain_unwritten
from verl_longshort.verl_plugin.trainer import pair_checkpoints
from verl_longshort.verl_plugin.trainer.best_pair import BestPair, Validated, recall
from verl_longshort.verl_plugin.trainer.pair_checkpoints import PairCheckpoints
from verl_longshort.verl_plugin.trainer.pair_trainer import PairTrainer
from verl_longshort.verl_plugin.trainer.policy_trainer import PolicyTrainer


class Policy(PolicyTrainer):
    """Writes the number of its updates."""

    def __init__(self, store: CheckpointStore, role: Role) -> None:
        self.store, self.name, self.roles = store, role.value, (role,)
        self.config = OmegaConf.create({"actor_rollout_ref": {"model": {}}})
        self.updates, self.saves = 0, []
        self.error: Exception | None = None

    def save(self, step: int) -> None:
        folder = self.store.policy_folder(self.name, step) / "actor"
        folder.mkdir(parents=True)
        torch.save(self.updates, folder / "model_world_size_1_rank_0.pt")
        if self.error:
            raise self.error
        self.saves.append(step)

    def exported(self, step: int) -> str:
        return f"{self.name}/{step}"


class Loader:
    loaded = False

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.loaded = True

    def state_dict(self) -> dict[str, int]:
        return {}


class Buffer:
    def validation_failures(self) -> dict[str, float]:
        return {}


class Activity:
    def now(self, step: int, doing: str) -> None:
        pass


class Settings:
    schedule: Schedule
    keep_checkpoints: int | None = 1
    limits = Limits(max_turns=8, long_turn_tokens=16, short_turn_tokens=16, token_budget=64)
    prompts = DEFAULT_PROMPTS


@pytest.fixture(autouse=True)
def exports_alone(monkeypatch):
    """There is no export to finish."""
    monkeypatch.setattr(pair_checkpoints, "finish_export", lambda *_, **__: None)


def trainer_in(root, *, keep=1, rounds=("long", "short", "long"), each=4, save_freq=2):
    trainer = PairTrainer.__new__(PairTrainer)
    trainer.settings, trainer.activity, trainer.train_dataloader = Settings(), Activity(), Loader()
    trainer.settings.keep_checkpoints = keep
    trainer.schedule = Schedule.parse(rounds, each)
    trainer.settings.schedule = trainer.schedule
    store = CheckpointStore(root)
    trainer.checkpoints = PairCheckpoints(Resume(store=store, source=store, step=None), trainer.settings, {})
    trainer.best_pair = BestPair(store, start=None)
    trainer.policies = {role: Policy(store, role) for role in ROLES}
    trainer.config = OmegaConf.create({"trainer": {"save_freq": save_freq}})
    trainer.timing_raw = {}
    trainer.replay_buffer = Buffer()
    return trainer


def run(trainer, steps):
    """As verl's `fit` calls the trainer."""
    for step in steps:
        trainer.global_steps = step
        for role in trainer.schedule.learners(step):
            trainer.checkpoints.written.pop(role, None)
            trainer.policies[role].updates += 1
        if step % trainer.config.trainer.save_freq == 0:
            trainer._save_checkpoint()
        trainer._save_end_of_round()


def test_a_run_that_is_asked_to_end_saves_its_last_step(tmp_path):
    trainer = trainer_in(tmp_path)
    trainer.config.data = {"train_batch_size": 4}
    run(trainer, range(1, 4))
    asleep = []
    for policy in trainer.policies.values():
        policy.sleep = lambda name=policy.name: asleep.append(name)
    trainer._stop, trainer.train_dataloader_it = StopFile(tmp_path), iter(())
    trainer._stop.ask()
    trainer.global_steps = 4
    with pytest.raises(RunStoppedError):
        trainer.step({}, {})
    assert asleep == list(ROLES)
    assert trainer.checkpoints.store.latest() == 3
    assert updates_in(trainer, Role.LONG, 3) == 3
    # once more there is nothing new to save
    with pytest.raises(RunStoppedError):
        trainer.step({}, {})
    assert len(asleep) == 2


def updates_in(trainer, role, step):
    return torch.load(trainer.checkpoints.store.policy_folder(role, step) / "actor" / "model_world_size_1_rank_0.pt")


def test_ends_of_rounds_stay_and_a_policy_that_did_not_learn_is_not_written_again(tmp_path):
    trainer = trainer_in(tmp_path, save_freq=3)
    run(trainer, range(1, 13))
    store = trainer.checkpoints.store
    # every third step and every end of a round were saved; with keep_checkpoints=1 the ends stay
    assert store.steps() == [4, 8, 12]
    assert trainer.policies[Role.LONG].saves == [3, 4, 9, 12]
    assert trainer.policies[Role.SHORT].saves == [3, 6, 8]
    assert [updates_in(trainer, Role.LONG, step) for step in (4, 8, 12)] == [4, 4, 8]
    assert [updates_in(trainer, Role.SHORT, step) for step in (4, 8, 12)] == [0, 4, 4]
    assert all(store.defect(step) is None for step in store.steps())
    assert store.latest() == 12


def test_without_validation_it_prunes_too(tmp_path):
    trainer = trainer_in(tmp_path, keep=2, rounds=["both"], each=20, save_freq=2)
    run(trainer, range(1, 20))
    assert trainer.checkpoints.store.steps() == [16, 18]


def test_a_file_system_without_hard_links_has_every_file_twice(tmp_path, monkeypatch, capsys):
    def refused(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr("os.link", refused)
    trainer = trainer_in(tmp_path)
    run(trainer, range(1, 5))
    assert trainer.policies[Role.SHORT].saves == [2, 4]
    assert "short's files of step 2 cannot be linked" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/disk/x.pt"), "/disk/x.pt: No space left on device"),
        (OSError(errno.EROFS, "Read-only file system", "/disk/x.pt"), "/disk/x.pt: Read-only file system"),
        (
            RayTaskError("save_checkpoint", "trace", RuntimeError("PytorchStreamWriter failed: file write failed\nat")),
            "PytorchStreamWriter failed: file write failed;",
        ),
    ],
)
def test_what_cannot_be_saved_is_one_line_and_leaves_the_last_checkpoint(tmp_path, error, said):
    trainer = trainer_in(tmp_path)
    run(trainer, range(1, 3))
    trainer.policies[Role.LONG].error = error
    with pytest.raises(UnwrittenError) as failure:
        run(trainer, range(3, 5))
    text = str(failure.value)
    assert "\n" not in text
    assert said in text
    assert "step 4 cannot be saved" in text
    assert "the last usable checkpoint is that of step 2" in text
    assert trainer.checkpoints.store.latest() == 2
    assert not trainer.checkpoints.store.policy_folder(Role.LONG, 4).exists()


def test_a_full_disk_is_named_where_torch_does_not(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 0}))
    trainer = trainer_in(tmp_path)
    trainer.policies[Role.LONG].error = RuntimeError("unexpected pos 64 vs 0")
    with pytest.raises(UnwrittenError, match=r"the disk is full; unexpected pos.*there is no checkpoint yet"):
        run(trainer, [1, 2])


def test_files_outside_of_saving(tmp_path):
    full = OSError(errno.ENOSPC, "No space left on device", "/disk/activity.json")
    assert "/disk/activity.json: No space left" in str(explain_unwritten(full, tmp_path))
    assert explain_unwritten(FileNotFoundError(errno.ENOENT, "no"), tmp_path) is None
    assert explain_unwritten(ValueError("x"), tmp_path) is None


def test_a_half_written_step_is_written_anew(tmp_path):
    trainer = trainer_in(tmp_path, keep=None)
    run(trainer, range(1, 3))
    # a run that was killed while it saved step 4: the files of the short policy are those of step 2
    trainer.checkpoints.store.share(Role.SHORT, 4, written=2)
    again = trainer_in(tmp_path, keep=None)
    again.checkpoints.saved = 2
    again.policies[Role.SHORT].updates = 7
    run(again, range(3, 5))
    assert updates_in(again, Role.SHORT, 4) == 7
    assert updates_in(again, Role.SHORT, 2) == 0


def place(trainer):
    """Its step, that of its last checkpoint, and where each policy's present weights are saved."""
    return trainer.global_steps, trainer.checkpoints.saved, trainer.checkpoints.written


def validate(trainer, step, correct, tokens=100.0):
    names = [f"t/{index}" for index in range(20)]
    trainer.global_steps = step
    trainer.best_pair.last = Validated(
        step=step,
        correct={name: [float(index < correct)] for index, name in enumerate(names)},
        tokens={name: [tokens + index] for index, name in enumerate(names)},
    )
    trainer.on_validate_end()


def best_of(trainer):
    return json.loads((trainer.checkpoints.store.root / "best.json").read_text())


def test_the_start_is_what_was_validated_before_the_first_step(tmp_path):
    trainer = trainer_in(tmp_path)
    validate(trainer, 0, 10)
    run(trainer, range(1, 3))
    validate(trainer, 2, 16)
    run(trainer, range(3, 5))
    validate(trainer, 4, 12)
    best = best_of(trainer)
    assert (best["start"]["step"], best["start"]["accuracy"]) == (0, 0.5)
    assert (best["best"]["step"], best["best"]["accuracy"]) == (2, 0.8)
    assert best["models"] == {"long": "long/2", "short": "short/2"}
    assert best["score"]["value"] == pytest.approx(1.8)
    assert best["rival"]["step"] == 4
    # the best one stays
    assert trainer.checkpoints.store.steps() == [2, 4]


def test_a_run_without_a_first_validation_has_no_start(tmp_path):
    trainer = trainer_in(tmp_path)
    run(trainer, range(1, 3))
    validate(trainer, 2, 10)
    run(trainer, range(3, 5))
    validate(trainer, 4, 12)
    best = best_of(trainer)
    assert best["start"] is None
    assert best["best"]["step"] == 4
    assert best["score"] is None


def test_a_step_that_is_validated_again_counts_once(tmp_path):
    trainer = trainer_in(tmp_path, keep=None)
    validate(trainer, 0, 10)
    for step, correct in ((2, 12), (4, 14)):
        run(trainer, range(step - 1, step + 1))
        validate(trainer, step, correct)
    assert best_of(trainer)["best"]["step"] == 4
    # sampled again after resuming: worse than step 2
    validate(trainer, 4, 11)
    assert best_of(trainer)["best"]["step"] == 2


@pytest.fixture(scope="module")
def overrides(tmp_path_factory):
    """Of a run with two tiny models, which is checked as a whole."""
    folder = tmp_path_factory.mktemp("run")
    pair = PairRun(folder=folder, models=dict.fromkeys(ROLES, write_model(folder / "model")))
    given = ["longshort.schedule=[long,short]", "longshort.steps_per_round=2", "trainer.save_freq=1"]
    command = [*pair.command(), *given, "trainer.v1.trainer_mode=longshort"]
    return command[command.index("train") + 1 :]


def begun(overrides):
    """A trainer as far as its construction before anything is started."""
    config = checked_config(overrides)
    OmegaConf.resolve(config)
    trainer = trainer_in(config.trainer.default_local_dir)
    trainer.config, trainer.settings = config, settings_of(config)
    trainer.schedule = trainer.settings.schedule
    trainer.train_dataloader = Loader()
    trainer._load_checkpoint()
    for policy in trainer.policies.values():
        policy.store = trainer.checkpoints.store
    return trainer


def test_a_run_is_saved_resumed_and_forked_with_its_real_configuration(overrides, tmp_path):
    first = begun([*overrides, f"trainer.default_local_dir={tmp_path}/run"])
    assert place(first) == (0, None, {})
    validate(first, 0, 10)
    run(first, range(1, 3))
    validate(first, 2, 12)
    state = json.loads((first.checkpoints.store.pair_folder(2) / "pair.json").read_text())
    assert state["plan"] == {"longshort.reward.mu.end_step": 4}
    assert state["data"]["train"]["data.train_files"].startswith("16 problems")
    assert set(state["policies"]) == {"long", "short"}

    again = begun([*overrides, f"trainer.default_local_dir={tmp_path}/run"])
    assert place(again) == (
        2,
        2,
        {Role.LONG: 2, Role.SHORT: 2},
    )
    assert again.train_dataloader.loaded
    assert (again.best_pair._start.step, again.best_pair._start.accuracy) == (0, 0.5)
    for policy in again.policies.values():
        policy.updates = 2
    run(again, range(3, 4))
    # the long policy did not learn since the run was resumed
    assert again.policies[Role.LONG].saves == []
    assert again.policies[Role.SHORT].saves == [3]

    source = again.checkpoints.store
    fork = [f"trainer.resume_from_path={source.pair_folder(3)}", "trainer.resume_mode=resume_path"]
    forked = begun([*overrides, *fork, f"trainer.default_local_dir={tmp_path}/fork"])
    assert place(forked) == (3, None, {})
    assert forked.best_pair._start.step == 0
    assert [one.step for one in recall(forked.checkpoints.store.root, 9).values()] == [0]
    run(forked, range(4, 5))
    assert forked.policies[Role.LONG].saves == [4]
    assert source.latest() == 3


def test_verls_validation_is_kept_by_problem(tmp_path):
    trainer = trainer_in(tmp_path)
    trainer.global_steps = 2
    facts = {
        "reward": [1.0, 0.0, 1.0],
        "acc": [1.0, 0.0, 1.0],
        "tokens": [10.0, 20.0, 30.0],
        "problem": ["t/0", "t/1", "t/0"],
        "stop_reason": ["answered", "answered", "answered"],
    }
    expected = {("t", "a"): 2, ("t", "b"): 2}
    metrics = trainer._val_metrics_update(["t"] * 3, ["a", "b", "a"], facts, [2, 2, 2], expected_acc_counts=expected)
    assert metrics["val/accuracy"] == 0.5
    assert metrics["val/tokens"] == 20.0
    assert trainer.best_pair.last.correct == {"t/0": [1.0, 1.0], "t/1": [0.0, 0.0]}
