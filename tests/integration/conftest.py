"""A tiny model and tiny data for runs of the real trainer."""

from pathlib import Path

import pytest
from helpers.harness import sums, write_model, write_rows
from helpers.speakers import write_speakers, write_tied_speaker
from longshort_reward.protocol import Role


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random Llama of about 10,000 parameters with its tokenizer."""
    return write_model(tmp_path_factory.mktemp("tiny_model"))


@pytest.fixture(scope="session")
def speakers(tmp_path_factory: pytest.TempPathFactory) -> dict[Role, Path]:
    """Folders of two tiny models, of different size and tokenizer, that speak the protocol."""
    return write_speakers(tmp_path_factory.mktemp("speakers"))


@pytest.fixture(scope="session")
def tied_speaker(tmp_path_factory: pytest.TempPathFactory) -> dict[Role, Path]:
    """Folder of one tiny model that speaks for both roles, by role."""
    return write_tied_speaker(tmp_path_factory.mktemp("tied_speaker"))


@pytest.fixture(scope="session")
def tiny_rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Parquet file with 16 short problems in verl's format."""
    return write_rows(tmp_path_factory.mktemp("tiny_rows") / "rows.parquet", sums(16))
