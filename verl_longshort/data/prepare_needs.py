"""What the commands `longshort prepare problems` and `prepare chains` need, for a dry run."""

from verl_longshort.data.prepare_settings import ChainSettings, ProblemSettings
from verl_longshort.data.stage import beside
from verl_longshort.base.dry_run import absolute
from verl_longshort.base.requirements import GenerationWork, Requirements, FileWork, Product
from verl_longshort.recipe.stage_needs import asked, generating


def problem_needs(settings: ProblemSettings) -> Requirements:
    """Of `longshort prepare problems`. How many problems are left for training is not known before."""
    folder = settings.output_dir
    counts = {"train.parquet": None, "val.parquet": settings.val_problems}
    files = ("dropped.jsonl", "card.json", "card.md")
    products = (
        *(Product(path=absolute(folder / name), records=count) for name, count in counts.items()),
        *(Product(path=absolute(folder / name)) for name in files),
    )
    return Requirements(command="prepare problems", products=products)


def chain_needs(settings: ChainSettings) -> Requirements:
    """Of `longshort prepare chains`; a reasoning model is asked where no file has the chains."""
    products = (
        Product(path=absolute(settings.output), records=settings.problems),
        Product(path=absolute(beside(settings.output, "rejects"))),
    )
    if settings.llm is None:
        return Requirements(command="prepare chains", work=FileWork(), products=products)
    work = GenerationWork(
        engines=(asked(settings.llm),),
        records=settings.problems,
        new_tokens=settings.llm.sampling.max_tokens,
    )
    return generating("prepare chains", work, products)
