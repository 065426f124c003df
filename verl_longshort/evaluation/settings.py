"""The `longshort` block of an evaluation, checked and typed; each key is documented in
`config/eval.yaml`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longshort_reward.compat import StrEnum
from longshort_reward.errors import UserError
from longshort_reward.protocol import ANSWER_OPEN, THINK_OPEN, RolePrompts

from verl_longshort.base.files import check_model, model_identity
from verl_longshort.config.pair import parse_limits, parse_prompts
from verl_longshort.core.environment import Limits
from verl_longshort.engines.factory import EngineSettings
from verl_longshort.evaluation.early_stop_settings import EarlyStop
from verl_longshort.evaluation.endpoint_settings import EndpointSettings
from verl_longshort.problems.settings import KEYS as PROBLEM_KEYS
from verl_longshort.problems.settings import ProblemSettings


class Mode(StrEnum):
    """Who answers."""

    PAIR = "pair"
    LONG_COT = "long_cot"
    DIRECT = "direct"
    PLAIN = "plain"
    EARLY_STOP = "early_stop"

    @property
    def opening(self) -> str:
        """What a single model's answer is made to begin with."""
        openings = {Mode.LONG_COT: THINK_OPEN, Mode.EARLY_STOP: THINK_OPEN, Mode.DIRECT: ANSWER_OPEN}
        return openings.get(self, "")

    @property
    def speakers(self) -> tuple[str, ...]:
        """Keys of `longshort.models` that this mode needs."""
        return ("long", "short") if self is Mode.PAIR else ("single",)


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """Everything an evaluation depends on."""

    name: str
    mode: Mode
    models: Mapping[str, str]
    """Model path by speaker."""
    problems: ProblemSettings
    output_dir: Path
    samples: int
    temperature: float
    top_p: float
    seed: int
    max_num_seqs: int
    answer_timeout_s: float
    rollout_timeout_s: float
    limits: Limits
    prompts: RolePrompts
    system_prompt: str
    early_stop: EarlyStop
    endpoint: EndpointSettings
    engine: EngineSettings

    @property
    def records_file(self) -> Path:
        """Where every trajectory is kept."""
        return self.output_dir / f"{self.name}.jsonl"

    @property
    def summary_file(self) -> Path:
        """Where the summary goes."""
        return self.output_dir / f"{self.name}.json"

    @classmethod
    def parse(cls, block: Mapping[str, Any]) -> "EvaluationSettings":
        """Check a block of plain containers. Raises UserError naming the key that cannot be used."""
        values = dict(block)
        environment = dict(values.pop("environment"))
        mode = _mode(values["mode"])
        endpoint = EndpointSettings.parse(
            values["endpoint"], values["models"], mode.speakers, in_chat=mode is Mode.PLAIN
        )
        if endpoint.base_urls and mode is Mode.EARLY_STOP:
            raise UserError("longshort.mode", mode, "needs the model in this process, not behind an endpoint")
        values |= {
            "mode": mode,
            "endpoint": endpoint,
            "models": _models(values["models"], mode, endpoint.base_urls),
            "problems": ProblemSettings.parse({key: values.pop(key) for key in PROBLEM_KEYS}),
            "output_dir": Path(values["output_dir"]),
            "name": str(values["name"]),
            "prompts": parse_prompts(environment.pop("prompts")),
            "limits": parse_limits(environment),
            "early_stop": EarlyStop.parse(values["early_stop"]),
            "engine": EngineSettings.parse(
                {key: values.pop(key) for key in EngineSettings.model_fields}, where="longshort"
            ),
        }
        settings = cls(**values)
        settings._check_numbers()
        return settings

    def header(self) -> dict[str, Any]:
        """What records of two runs must have in common to belong together, as JSON values."""
        own = {"name", "samples", "temperature", "top_p", "seed"}
        values = {key: value for key, value in vars(self).items() if key in own}
        prompts = vars(self.prompts) if self.mode is Mode.PAIR else {"single": self.system_prompt}
        return {
            **values,
            **self.problems.header(),
            **self.engine.engine_header(),
            "mode": str(self.mode),
            "models": {speaker: self._identity(speaker) for speaker in self.models},
            "limits": vars(self.limits),
            "prompts": dict(prompts),
            **({"early_stop": vars(self.early_stop)} if self.mode is Mode.EARLY_STOP else {}),
        }

    def _identity(self, speaker: str) -> list[Any]:
        if self.endpoint.base_urls:
            return [self.models[speaker], self.endpoint.base_urls[speaker]]
        return model_identity(self.models[speaker])

    def _check_numbers(self) -> None:
        for key in ("samples", "max_num_seqs", "answer_timeout_s", "rollout_timeout_s"):
            value = getattr(self, key)
            if value <= 0:
                raise UserError(f"longshort.{key}", value, "must be above 0")
        if self.temperature < 0:
            raise UserError("longshort.temperature", self.temperature, "must be 0 (greedy) or more")
        if self.temperature == 0 and self.samples > 1:
            raise UserError("longshort.samples", self.samples, "greedy answers are all the same: raise temperature")


def _mode(value: str) -> Mode:
    try:
        return Mode(value)
    except ValueError:
        raise UserError("longshort.mode", value, f"must be one of {', '.join(Mode)}") from None


def _models(given: Mapping[str, str | None], mode: Mode, base_urls: Mapping[str, str]) -> dict[str, str]:
    models = {}
    for speaker in mode.speakers:
        key, path = f"longshort.models.{speaker}", given.get(speaker)
        if path is None:
            remedy = f"the mode {mode} needs it: give a Hugging Face model folder, or the endpoint's name"
            raise UserError(key, None, remedy)
        if not base_urls:
            check_model(path, key=key)
        models[speaker] = path
    return models
