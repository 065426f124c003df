"""The pair card: the README of an exported pair, which the hub shows as its page."""

import json
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from longshort_reward.protocol import OPENINGS, ROLES, Role

from verl_longshort.base.model_files import stored_dtype, weight_headers
from verl_longshort.base.pair_file import FILE, PairRecord
from verl_longshort.core.schedule import Schedule
from verl_longshort.evaluation.table import as_markdown, load_rows
from verl_longshort.report.evaluations import Evaluation, choose_bases
from verl_longshort.sharing.settings import ExportSettings
from verl_longshort.sharing.source import Source

CARD = "README.md"
PAPER = "https://arxiv.org/abs/2505.11827"
TAGS = ("longshort", "reasoning", "multi-agent", "efficient-reasoning")
_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_TEMPLATES = files("verl_longshort.sharing") / "templates"
_NEVER_BELOW = re.compile(r"global_step_\d+|logs|progress|stages")


def pair_card(
    settings: ExportSettings,
    source: Source,
    record: PairRecord,
    folder: Path,
    evaluations: Sequence[Evaluation],
    own: Sequence[Evaluation],
) -> str:
    """The card of the pair in `folder`; `own` are the evaluations of this very pair."""
    roles = [_role(record, role, folder) for role in ROLES]
    context = {
        "metadata": _metadata(settings, record),
        "record": record,
        "file": FILE,
        "paper": PAPER,
        "roles": roles,
        "tied": record.roles.long.folder == record.roles.short.folder,
        "hashes": {name: digest for role in roles for name, digest in role["hashes"].items()},
        "adapters": sorted({adapter for role in ROLES if (adapter := record.roles.of(role).adapter)}),
        "limits": vars(record.environment.limits),
        "prompts": {name: fenced(text) for name, text in vars(record.environment.prompts.role_prompts).items()},
        "training": _training(record),
        "cards": _data_cards(source.recipe),
        "tables": _tables(evaluations),
        "own": ", ".join(dict.fromkeys(one.name for one in own)),
        "run_versions": {} if record.origin is None else record.origin.versions,
    }
    environment = Environment(
        loader=FileSystemLoader(str(_TEMPLATES)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        # it writes Markdown
        autoescape=False,
    )
    return environment.get_template("card.md.jinja").render(context)


def _metadata(settings: ExportSettings, record: PairRecord) -> str:
    """The hub's YAML front matter."""
    from huggingface_hub import ModelCardData

    bases = [base for role in ROLES if (base := record.roles.of(role).base) and base.count("/") == 1]
    data = ModelCardData(
        license=settings.license,
        language=list(settings.language) or None,
        datasets=list(settings.datasets) or None,
        base_model=list(dict.fromkeys(bases)) or None,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=list(TAGS),
        inference=False,
    )
    return str(data.to_yaml())


def _role(record: PairRecord, role: Role, folder: Path) -> dict[str, Any]:
    entry = record.roles.of(role)
    place = folder / entry.folder
    config = json.loads((place / "config.json").read_text(encoding="utf-8"))
    dtype = stored_dtype(place)
    size = sum(size for _, size in weight_headers(place).values())
    return {
        "name": role.value,
        "folder": entry.folder,
        "kind": config.get("model_type", "?"),
        "parameters": f"{size // _BYTES[dtype]:,}" if dtype in _BYTES else f"{size:,} bytes",
        "dtype": dtype or "quantised",
        "base": entry.base or "?",
        "opening": OPENINGS[role],
        "stop": entry.stop,
        "hashes": {f"{entry.folder}/{name}": digest.sha256 for name, digest in entry.weights.items()},
    }


def fenced(text: str) -> str:
    """A text as a block of code that it cannot end itself."""
    if not text:
        return "*none: no system message is sent*"
    longest = max((len(ticks) for ticks in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"


def _training(record: PairRecord) -> dict[str, str]:
    origin = record.origin
    if origin is None:
        return {}
    schedule = Schedule.parse(list(origin.schedule), origin.steps_per_round)
    how = {
        "best": "the best of those that were validated",
        "latest": "the run's newest checkpoint",
        "step": "chosen by hand",
    }
    done = schedule.label(origin.step)
    facts = {
        "recipe": origin.recipe,
        "seed": origin.seed,
        "rounds": f"{', '.join(origin.schedule)}; {origin.steps_per_round} steps each",
        "checkpoint": f"step {origin.step} of {schedule.total_steps} (rounds done: {done}), {how[origin.chosen]}",
        "validation at the start": _validation(origin.start),
        "validation of this checkpoint": _validation(origin.validation),
        **{f"{split} data": "; ".join(map(str, known.values())) for split, known in _files(origin.data).items()},
    }
    return {name: str(value) for name, value in facts.items() if value is not None}


def _files(data: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Of the record of a run's data only how many problems there were, and their hash."""
    return {
        split: {key: value for key, value in known.items() if key.endswith("_files")} for split, known in data.items()
    }


def _validation(known: Mapping[str, Any] | None) -> str | None:
    if known is None:
        return None
    accuracy, tokens = known.get("accuracy_interval"), known.get("tokens_interval")
    percent = f" [{100 * accuracy[0]:.1f}, {100 * accuracy[1]:.1f}]" if accuracy else ""
    lengths = f" [{tokens[0]:.1f}, {tokens[1]:.1f}]" if tokens else ""
    return f"accuracy {100 * known['accuracy']:.1f} %{percent}, {known['tokens']:.1f} tokens{lengths}"


def _data_cards(recipe: Path | None) -> list[str]:
    """The first part of each data card of the recipe: title and counts, a level lower than it stands there."""
    if recipe is None:
        return []
    cards = [card for card in sorted(recipe.glob("*/card.md")) if not _NEVER_BELOW.fullmatch(card.parent.name)]
    return [f"##{card.read_text(encoding='utf-8').partition('## Made with')[0].strip()}" for card in cards]


def _tables(evaluations: Sequence[Evaluation]) -> list[str]:
    """A table for each data set."""
    by_data: dict[str, list[Evaluation]] = {}
    for one in evaluations:
        by_data.setdefault(one.data, []).append(one)
    bases = choose_bases(evaluations, None)
    return [
        as_markdown(load_rows([one.file for one in some], bases[data].name if data in bases else None))
        for data, some in by_data.items()
    ]
