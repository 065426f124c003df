"""What is exported: the models of a run's checkpoint or two folders, and what is known of their training.

Nothing here imports verl or torch. `find_source` reads records only: `pair.json` of the checkpoint, `best.json`,
`longshort_policy.json` beside the weights, `run.json` of the recipe.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from longshort_reward.errors import UserError
from longshort_reward.protocol import ROLES, Role

from verl_longshort.base.checkpoint import STATE, TRACKER, CheckpointStore, PairState
from verl_longshort.base.files import check_model
from verl_longshort.base.model_files import adapter_base
from verl_longshort.base.pair_file import Origin
from verl_longshort.base.policy_record import POLICY_FILE
from verl_longshort.base.run_record import FILE as RUN_FILE
from verl_longshort.base.run_record import read_record
from verl_longshort.config.pair import EnvironmentSettings
from verl_longshort.core.environment import Limits
from verl_longshort.core.policies import TIED, players
from verl_longshort.report.evaluations import Evaluation, find_evaluations
from verl_longshort.sharing.settings import ExportSettings, GivenEnvironment

RUN_KEY = "longshort.run"
_STEP_KEY = "longshort.checkpoint"
_PAIR_FOLDER = "pair"
"""What the recipes call the folder of a run, below their own."""


@dataclass(frozen=True, kw_only=True)
class Policy:
    """The model of a role."""

    model: str
    """A Hugging Face folder, or a name on the hub."""
    adapter: Path | None = None

    @property
    def base(self) -> str | None:
        """The model that the first training of the policy began with, as far as the folders record it."""
        return _lineage(self.model)[-1] if Path(self.model).is_dir() else self.model


@dataclass(frozen=True, kw_only=True)
class Source:
    """A pair to export."""

    policies: Mapping[Role, Policy]
    recorded: Mapping[str, Any] = field(default_factory=dict)
    """The environment of the training, as the run recorded it."""
    origin: Origin | None = None
    recipe: Path | None = None
    """The output folder of the run's recipe, where there is one."""

    @property
    def players(self) -> dict[str, tuple[Role, ...]]:
        """The policies by name, with the roles that each plays: one model that plays both is one policy."""
        return players(tied=len({policy.model for policy in self.policies.values()}) == 1)


def find_source(settings: ExportSettings) -> Source:
    """The models that `settings` name. Raises UserError where there are none."""
    if settings.run is not None:
        return _of_run(settings.run.expanduser(), settings.checkpoint)
    policies = {}
    for role in ROLES:
        model = str(settings.models.of(role))
        check_model(model, key=f"longshort.models.{role}", adapters=True)
        folder = Path(model).expanduser()
        adapter = folder if folder.is_dir() and adapter_base(folder) is not None else None
        policies[role] = Policy(model=str(folder) if folder.is_dir() else model, adapter=adapter)
    return Source(policies=policies)


def environment_of(given: GivenEnvironment, source: Source, evaluations: list[Evaluation]) -> EnvironmentSettings:
    """Limits and prompts of the pair: what is given, else what the run, the policies or an evaluation recorded.

    Runs of earlier versions did not record their limits; an evaluation of the same models did.

    Raises UserError for a limit that nobody knows.
    """
    limits: Mapping[str, Any] = next((one.header["limits"] for one in evaluations if "limits" in one.header), {})
    known = {**limits, **source.recorded}
    found = {name: _or(getattr(given, name), known.get(name)) for name in Limits.model_fields}
    lacking = [name for name, value in found.items() if value is None]
    if lacking:
        remedy = "no record says what the pair was trained with: give all limits of longshort.environment"
        raise UserError(f"longshort.environment.{lacking[0]}", None, remedy)
    prompts = dict(vars(given.prompts.role_prompts))
    for role in ROLES:
        if given.prompts.of(role) is None:
            said = known.get("prompts") or _read(Path(source.policies[role].model) / POLICY_FILE).get("prompts") or {}
            prompts[role.value] = said.get(role.value, prompts[role.value])
    return EnvironmentSettings.parse({**found, "prompts": prompts}, where="longshort.environment")


def evaluations_of(settings: ExportSettings, source: Source) -> list[Evaluation]:
    """The complete evaluations for the card. Raises UserError for a file that is none."""
    if settings.evaluations is not None:
        found = [one for file in settings.evaluations for one in _read_evaluation(file)]
    else:
        found = find_evaluations(source.recipe) if source.recipe is not None else []
    return [one for one in found if one.is_complete]


def is_of(evaluation: Evaluation, source: Source) -> bool:
    """Whether these very models were evaluated, by their folders."""
    models = evaluation.header["models"]
    paths = {role: models.get(role.value) for role in ROLES}
    return all(
        path is not None and _same(path[0] if isinstance(path, list) else path, source.policies[role].model)
        for role, path in paths.items()
    )


def _of_run(given: Path, chosen: int | str) -> Source:
    if not given.is_dir():
        raise UserError(RUN_KEY, given, "no such folder: give a run's trainer.default_local_dir")
    root = given if _has_checkpoints(given) else given / _PAIR_FOLDER
    if list(given.glob("global_step_*/actor")):
        raise UserError(RUN_KEY, given, "is the run of a single model, which is a Hugging Face folder already")
    if not _has_checkpoints(root):
        raise UserError(RUN_KEY, given, "holds no checkpoint of a pair: give a run's trainer.default_local_dir")
    store = CheckpointStore(root)
    step, how = _step(store, chosen)
    best = store.read_best() or {}
    state = PairState.read(store.pair_folder(step or min(store.steps())) / STATE)
    policies = {role: _policy(store, role, step, state) for role in ROLES}
    recipe = next((folder for folder in (root, root.parent) if (folder / RUN_FILE).is_file()), None)
    record = None if recipe is None else read_record(recipe)
    origin = Origin(
        run=root.name,
        step=step,
        chosen=how,  # type: ignore[arg-type]
        schedule=tuple(state.schedule),
        steps_per_round=state.steps_per_round,
        seed=None if record is None else record.settings.get("seed"),
        recipe=None if record is None else Path(record.recipe).name,
        data=state.data,
        start=best.get("start"),
        validation=best["best"] if best and best["best"]["step"] == step else None,
        versions={} if record is None else record.versions,
    )
    return Source(policies=policies, recorded=state.environment, origin=origin, recipe=recipe)


def _has_checkpoints(folder: Path) -> bool:
    return (folder / TRACKER).is_file() or bool(CheckpointStore(folder).steps())


def _step(store: CheckpointStore, chosen: int | str) -> tuple[int, str]:
    """The step to export, and how it was chosen. Raises UserError where there is no whole checkpoint of it."""
    best = store.read_best() if chosen == "best" else None
    if best is not None:
        step, how = int(best["best"]["step"]), "best"
    elif isinstance(chosen, int):
        step, how = chosen, "step"
    else:
        found = store.latest()
        if found is None:
            raise UserError(RUN_KEY, store.root, "has no checkpoint yet")
        step, how = found, "latest"
    if not store.steps():
        raise UserError(RUN_KEY, store.root, "has no checkpoint yet")
    if step and (defect := store.defect(step)):
        whole = [str(one) for one in store.steps() if store.defect(one) is None]
        raise UserError(_STEP_KEY, chosen, f"{defect}: give one of the steps {', '.join(whole) or 'of another run'}")
    return step, how


def _policy(store: CheckpointStore, role: Role, step: int, state: PairState) -> Policy:
    """The model of a role after `step`: what it began with for step 0, and where the role never learned."""
    name = TIED if TIED in state.policies else role.value
    actor = store.policy_folder(name, step) / "actor"
    folder, adapter = actor / "huggingface", actor / "adapter"
    if actor.is_dir():
        if not list(folder.glob("*.safetensors")):
            remedy = f"has no exported weights ({folder}): hf_model was not in actor.checkpoint.save_contents"
            raise UserError(RUN_KEY, store.root, remedy)
        return Policy(model=str(folder), adapter=adapter if adapter.is_dir() else None)
    began = state.policies.get(name, {}).get("path")
    if began is None:
        raise UserError(RUN_KEY, store.root, f"does not record what the {role} policy began with: give both models")
    check_model(began, key=RUN_KEY)
    return Policy(model=began)


def _lineage(model: str) -> list[str]:
    """What each model was trained from, beginning with `model`, as far as the folders say."""
    found = [model]
    while (folder := Path(found[-1])).is_dir() and len(found) < 10:
        base = _read(folder / POLICY_FILE).get("base")
        if base is None or base in found:
            break
        around = [Path.cwd(), *folder.absolute().parents]
        found.append(next((str(one / base) for one in around if (one / base).is_dir()), str(base)))
    return found


def _read(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        remedy = f"is no JSON ({error}): restore it, or remove it, and what it says of the model is not known"
        raise UserError("longshort.models", file, remedy) from error
    return content if isinstance(content, dict) else {}


def _read_evaluation(file: Path) -> list[Evaluation]:
    if not file.expanduser().is_file():
        raise UserError("longshort.evaluations", file, "no such file: give the .jsonl files of longshort eval")
    found = [one for one in find_evaluations(file.expanduser().parent) if one.file.name == file.name]
    if not found:
        raise UserError("longshort.evaluations", file, "is no record file of longshort eval")
    return found


def _same(path: str, model: str) -> bool:
    return Path(path).expanduser().resolve() == Path(model).expanduser().resolve()


def _or(given: Any, known: Any) -> Any:
    return known if given is None else given
