"""The needs of the commands that prepare data and evaluate, from their checked settings.

Those of training are in `verl_longshort/trainer/dry.py`, which knows verl's configuration.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from verl_longshort.data.selection import RULES
from longshort_reward.errors import UserError
from verl_longshort.base.dry_run import absolute, dry_run, is_planned
from verl_longshort.base.requirements import EngineUse, GenerationWork, Requirements, FileWork, Product
from verl_longshort.engines.factory import MEMORY_SHARE

if TYPE_CHECKING:
    from verl_longshort.data.chunk import ChunkSettings
    from verl_longshort.world.make_world import Sizes
    from verl_longshort.data.synthesis_settings import SynthesisSettings
    from verl_longshort.data.weigh_settings import WeighSettings
    from verl_longshort.problems.settings import ProblemSettings
    from verl_longshort.evaluation.settings import EvaluationSettings
    from verl_longshort.llm.settings import LLMSettings
    from verl_longshort.engines.factory import EngineSettings

ENDPOINT = "endpoint"
PROMPT_ROOM = 4096
"""Tokens that a plan gives a prompt room for; in a run it may have as many as the model takes."""
RL_PARTS = ("train", "val", "test")


def in_process(
    model: str, settings: "EngineSettings", *, max_num_seqs: int, new_tokens: int, sharing: int = 1
) -> EngineUse:
    """A model in the command's own process: on GPUs where there are some, else on the CPU.

    `sharing`: how many such models divide the GPU's memory.
    """
    dry = dry_run()
    gpus = settings.tensor_parallel_size if dry is not None and dry.gpus else 0
    share = settings.gpu_memory_utilization
    return EngineUse(
        model=absolute_model(model),
        name=str(settings.engine),
        gpus=gpus,
        tensor_parallel=settings.tensor_parallel_size,
        memory_share=MEMORY_SHARE / sharing if share is None else share,
        max_length=PROMPT_ROOM + new_tokens,
        max_num_seqs=max_num_seqs,
    )


def asked(settings: "LLMSettings") -> EngineUse:
    """The language model that a data stage asks."""
    if settings.engine is not None:
        return in_process(
            settings.model,
            settings.engine,
            max_num_seqs=settings.concurrency,
            new_tokens=settings.sampling.max_tokens,
        )
    return EngineUse(model=settings.model, name=ENDPOINT, max_num_seqs=settings.concurrency)


def generating(command: str, work: GenerationWork, products: Sequence[Product]) -> Requirements:
    """Of a command that generates: the GPUs and packages that its engines need."""
    gpus = max((engine.gpus for engine in work.engines), default=0)
    vllm = any(engine.name == "vllm" for engine in work.engines)
    return Requirements(
        command=command,
        work=work,
        gpus_per_node=gpus,
        products=tuple(products),
        packages=("vllm",) if vllm else (),
    )


def absolute_model(model: str) -> str:
    """A folder as an absolute path, a name on the hub as it is."""
    folder = Path(model).expanduser()
    return absolute(folder) if folder.is_dir() or is_planned(folder) or model.count("/") != 1 else model


def world_needs(out: Path, sizes: "Sizes") -> Requirements:
    """Of `longshort world`."""
    counts = {
        f"{part}.{'parquet' if part in RL_PARTS else 'jsonl'}": count for part, count in vars(sizes).items()
    }
    files = tuple(Product(path=absolute(out / name), records=count) for name, count in counts.items())
    return Requirements(command="world", products=files)


def tiny_base_needs(out: Path) -> Requirements:
    """Of `longshort tiny-base`, which trains a model from nothing on the CPU."""
    from verl_longshort.world.tiny_model import build_model
    from verl_longshort.world.tiny_tokenizer import build_tokenizer

    config = build_model(build_tokenizer(), seed=0).config.to_dict()
    shape = {key: value for key, value in config.items() if isinstance(value, int | bool | str)}
    product = Product(path=absolute(out), config=shape, bytes_per_parameter=4)
    return Requirements(command="tiny-base", products=(product,))


def chunk_needs(settings: "ChunkSettings", chains: int | None) -> Requirements:
    """Of `longshort chunk`; a language model reads every chain and names its blocks."""
    product = Product(path=absolute(settings.output), records=chains)
    if settings.llm is None:
        return Requirements(command="chunk", work=FileWork(), products=(product,))
    work = GenerationWork(
        engines=(asked(settings.llm),), records=chains, new_tokens=settings.llm.sampling.max_tokens
    )
    return generating("chunk", work, [product])


def weigh_needs(settings: "WeighSettings", chains: int | None) -> Requirements:
    """Of `longshort weigh`: rollouts from the problem and from behind each thought."""
    count = chains if settings.limit is None or chains is None else min(chains, settings.limit)
    adaptive = settings.mode.value == "adaptive"
    work = GenerationWork(
        engines=(
            in_process(
                settings.model,
                settings.engine,
                max_num_seqs=settings.max_num_seqs,
                new_tokens=settings.max_tokens,
            ),
        ),
        records=count,
        samples=settings.budget if adaptive else settings.samples,
        per_thought=True,
        new_tokens=settings.max_tokens,
    )
    product = Product(path=absolute(settings.output), records=count)
    return generating("weigh", work, [product])


def coldstart_needs(settings: "SynthesisSettings", chains: int | None) -> Requirements:
    """Of `longshort coldstart`; a language model fills the gaps of every chain.

    Raises UserError for a rule that does not exist.
    """
    if settings.rule is not None and settings.rule not in RULES:
        raise UserError("longshort.rule", settings.rule, f"must be one of {', '.join(RULES)}")
    folder = settings.output_dir
    files = ("train.jsonl", "val.jsonl", "dropped.jsonl", "card.json", "card.md")
    shares = {"train.jsonl": 1 - settings.val_percent / 100, "val.jsonl": settings.val_percent / 100}
    products = tuple(
        Product(
            path=absolute(folder / name),
            records=None if chains is None or name not in shares else round(chains * shares[name]),
        )
        for name in files
    )
    if settings.llm is None:
        return Requirements(command="coldstart", products=products)
    work = GenerationWork(
        engines=(asked(settings.llm),), records=chains, new_tokens=settings.llm.sampling.max_tokens
    )
    return generating("coldstart", work, products)


def evaluate_needs(settings: "EvaluationSettings") -> Requirements:
    """Of `longshort eval`. Raises UserError for problems that cannot be read."""
    count = _problems(settings.problems)
    work = GenerationWork(
        engines=_speakers(settings),
        records=count,
        samples=settings.samples,
        new_tokens=settings.limits.token_budget,
    )
    records = None if count is None else count * settings.samples
    products = (
        Product(path=absolute(settings.records_file), records=records),
        Product(path=absolute(settings.summary_file)),
    )
    return generating("eval", work, products)


def _speakers(settings: "EvaluationSettings") -> tuple[EngineUse, ...]:
    if settings.endpoint.base_urls:
        models = [model for model in settings.models.values() if model]
        return tuple(
            EngineUse(model=model, name=ENDPOINT, max_num_seqs=settings.max_num_seqs) for model in models
        )
    return tuple(
        in_process(
            model,
            settings.engine,
            max_num_seqs=settings.max_num_seqs,
            new_tokens=settings.limits.token_budget,
            sharing=len(settings.models),
        )
        for model in settings.models.values()
    )


def _problems(settings: "ProblemSettings") -> int | None:
    """How many problems are asked; those of a benchmark on the Hub are known without fetching it."""
    from verl_longshort.problems.benchmarks import BENCHMARKS, find_sources, load_benchmark

    dry = dry_run()
    sources = find_sources(
        settings.benchmarks, settings.benchmark_files, settings.benchmark_dir, settings.data, settings.schema
    )
    counts: list[int | None] = []
    for source in sources:
        planned = dry.planned(source.path) if dry is not None and source.path is not None else None
        if planned is not None:
            counts.append(planned.records)
        elif source.path is None:
            counts.append(BENCHMARKS[source.name].problems)
        else:
            loaded = load_benchmark(
                source, template=settings.template, option_seed=settings.option_seed, limit=None
            )
            counts.append(len(loaded.problems))
    return _limited(counts, settings.limit)


def _limited(counts: Sequence[int | None], limit: int | None) -> int | None:
    known = [count for count in counts if count is not None]
    if len(known) < len(counts):
        return None
    return sum(count if limit is None else min(count, limit) for count in known)


def report_needs(command: str, inputs: Sequence[Path], out: Path) -> Requirements:
    """Of the commands that make a page. Raises UserError for an input that neither exists nor will."""
    for path in inputs:
        if not (path.exists() or is_planned(path)):
            raise UserError("RUN_DIR" if command == "report" else "FILES", path, "neither exists nor will")
    return Requirements(command=command, products=(Product(path=absolute(out)),))


def table_needs(files: Sequence[Path], written: Iterable[Path | None]) -> Requirements:
    """Of `longshort table`. Raises UserError for a file that neither exists nor will."""
    for file in files:
        if not (is_planned(file) or file.is_file()):
            raise UserError("FILES", file, "no such file, and no stage before writes it")
    products = tuple(Product(path=absolute(path)) for path in written if path is not None)
    return Requirements(command="table", products=products)
