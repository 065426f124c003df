"""The models of the integration tests."""

from pathlib import Path

import pytest
from longshort_reward.protocol import Role


@pytest.fixture(scope="session")
def speakers(tmp_path_factory: pytest.TempPathFactory) -> dict[Role, Path]:
    """Folders of two tiny models, of different size and tokenizer, that speak the protocol."""
    # torch and transformers, which only some of these tests need
    from helpers.speakers import write_speakers

    return write_speakers(tmp_path_factory.mktemp("speakers"))
