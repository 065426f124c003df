"""`longshort serve`; settings: `config/serve.yaml`; guide: `docs/serve.md`."""

from collections.abc import Sequence
from typing import Any

import click
from rich.console import Console

from verl_longshort.base.pair_file import with_pair
from verl_longshort.base.policy_record import prompt_warnings
from verl_longshort.base.requirements import EngineUse, GenerationWork, Requirements
from verl_longshort.base.stage import OVERRIDES, ConfigStage
from verl_longshort.engines.factory import generating, local_engine
from verl_longshort.llm.settings import ENDPOINT
from verl_longshort.serve.settings import ServeSettings

KEYS = {
    "long_url": "longshort.endpoint.base_url.long",
    "short_url": "longshort.endpoint.base_url.short",
    "host": "longshort.host",
    "port": "longshort.port",
}
"""Options of the command line, for short, and the keys that they stand for."""


class ServeStage(ConfigStage[ServeSettings, None]):
    """Serve a trained pair behind OpenAI's interface (config/serve.yaml)."""

    name = "serve"
    config = "serve"
    Settings = ServeSettings
    talks = True
    parameters = (
        *OVERRIDES,
        click.Option(["--long-url"], help=f"Endpoint of the long model; the same as {KEYS['long_url']}=."),
        click.Option(["--short-url"], help=f"Endpoint of the short model; the same as {KEYS['short_url']}=."),
        click.Option(["--host"], help=f"Where to listen; the same as {KEYS['host']}=."),
        click.Option(["--port"], type=int, help=f"Where to listen; the same as {KEYS['port']}=."),
    )

    def settings(self, **arguments: Any) -> ServeSettings:
        """The options are overrides like the others."""
        given = [f"{key}={arguments[name]}" for name, key in KEYS.items() if arguments.get(name) is not None]
        return super().settings(overrides=[*arguments["overrides"], *given])

    def block(self, overrides: Sequence[str]) -> dict[str, Any]:
        """With what a `pair.json` says. Raises UserError."""
        return with_pair(super().block(overrides), overrides)

    def requirements(self, settings: ServeSettings, inputs: None) -> Requirements:
        """The models; one that plays both roles is loaded once."""
        at_once, models = settings.max_num_seqs, dict.fromkeys(settings.model_paths.values())
        if settings.runs_here:
            tokens = settings.limits.token_budget
            engines = [
                local_engine(model, settings, max_num_seqs=at_once, new_tokens=tokens, sharing=len(models))
                for model in models
            ]
        else:
            engines = [EngineUse(model=model, name=ENDPOINT, max_num_seqs=at_once) for model in models]
        return generating(self.name, GenerationWork(engines=tuple(engines)), products=())

    def run(self, settings: ServeSettings, inputs: None, console: Console) -> None:
        """Serve until it is stopped."""
        from verl_longshort.serve.server import serve

        def say(line: str) -> None:
            console.print(line, highlight=False, soft_wrap=True, markup=False)

        if settings.runs_here:
            for line in prompt_warnings(settings.model_paths, settings.prompts):
                say(f"warning: {line}")
        serve(settings, say)
