"""Tiny models that vLLM can serve."""

from pathlib import Path

import pytest
from helpers.speakers import write_speakers
from longshort_reward.protocol import Role


@pytest.fixture(scope="session")
def speakers(tmp_path_factory: pytest.TempPathFactory) -> dict[Role, Path]:
    """Folders of two tiny models, of different size and tokenizer, that speak the protocol."""
    return write_speakers(tmp_path_factory.mktemp("speakers"))
