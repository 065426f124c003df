"""What the language model that a data stage asks requires."""

from verl_longshort.base.requirements import EngineUse
from verl_longshort.engines.factory import local_engine
from verl_longshort.llm.settings import LLMSettings

ENDPOINT = "endpoint"


def asked_model(settings: LLMSettings) -> EngineUse:
    """The model: in the command's own process, or behind an endpoint, which needs no GPU of ours."""
    if settings.runs_here:
        return local_engine(
            settings.model,
            settings,
            max_num_seqs=settings.concurrency,
            new_tokens=settings.max_tokens,
        )
    return EngineUse(model=settings.model, name=ENDPOINT, max_num_seqs=settings.concurrency)
