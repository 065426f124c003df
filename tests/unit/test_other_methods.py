"""Published results of other methods as data: whole, told apart by source, and scored by our formula."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from longshort_reward.errors import UserError

from verl_longshort.cli import main
from verl_longshort.evaluation.other_methods import (
    BASE,
    OtherResult,
    Source,
    other_results,
    parse_sources,
    results_of,
    sources,
)
from verl_longshort.evaluation.paper import BENCHMARKS
from verl_longshort.evaluation.published import published_tables

QWEN_7B, QWEN_1B = "DeepSeek-R1-Distill-Qwen-7B", "DeepSeek-R1-Distill-Qwen-1.5B"
SMALL: dict[str, Any] = {
    "arxiv": "2501.00001",
    "title": "A method",
    "table": "Table 1",
    "seen": "text of the paper",
    "protocol": {"sampling": "greedy", "samples": "1", "token_limit": None},
    "note": "",
    "benchmarks": ["math500", "aime24"],
    "models": [
        {
            "base_model": "m",
            "base": [[80.0, 4000], [40.0, 12000]],
            "methods": {"better": [[84.0, 1000], [42.0, 7000]], "worse": [[72.0, 2000], [36.0, 6000]]},
        }
    ],
}


def parsed(block: dict[str, Any]) -> Source:
    (source,) = parse_sources({"sources": [block]})
    return source


def changed(path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    block = copy.deepcopy(SMALL)
    place: Any = block
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = value
    return block


def row(arxiv: str, base_model: str, method: str) -> OtherResult:
    (found,) = [
        result
        for result in other_results()
        if (result.source.arxiv, result.base_model, result.method) == (arxiv, base_model, method)
    ]
    return found


def test_scores_follow_from_the_rows() -> None:
    base, better, worse = results_of(parsed(SMALL))
    assert (base.method, base.is_base, base.aes) == (BASE, True, 0)
    # means: base 60 % and 8000 tokens; better 63 % and 4000; worse 54 % and 4000
    assert better.aes == pytest.approx(0.5 + 3 * 0.05)
    assert worse.aes == pytest.approx(0.5 - 5 * 0.1)
    assert (better.accuracy, better.mean_tokens) == (63, 4000)


def test_what_is_not_known_is_said() -> None:
    assert str(parsed(SMALL).protocol) == "sampling: greedy; answers per problem: 1; most tokens: not known"


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("benchmarks",), ["math500", "gsm8k"], "must be one of math500, aime24"),
        (("models", 0, "base"), [[80.0, 4000]], "must hold a pair for each of math500, aime24"),
        (("models", 0, "methods", "better"), [[84.0, 0], [42.0, 7000]], "an accuracy in per cent and a number of"),
        (("models", 0, "methods", "better"), [[840.0, 10], [42.0, 7000]], "an accuracy in per cent and a number of"),
        (("models",), [], r"sources\[0\].models = \[\]"),
        (("year",), 2025, "unknown key"),
    ],
)
def test_a_table_that_is_not_whole_is_refused(path: tuple[Any, ...], value: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        parsed(changed(path, value))


def test_every_row_has_its_source_and_base() -> None:
    assert len(sources()) == 4
    for source in sources():
        assert source.arxiv
        assert source.seen
        assert "Table" in source.table
        results = results_of(source)
        assert len({(result.base_model, result.method) for result in results}) == len(results)
        for result in results:
            assert tuple(result.accuracies) == source.benchmarks
            assert set(source.benchmarks) <= set(BENCHMARKS)
            assert result.is_base == (result.aes == 0 and result.method == BASE)
            assert 100 < result.mean_tokens < 32768


def test_dler() -> None:
    """Its table, and the score that follows: above the published pair's 0.61."""
    large = row("2510.15110", QWEN_7B, "DLER")
    assert large.accuracies == {"math500": 94.21, "aime24": 55.62, "amc23": 84.41}
    assert large.tokens == {"math500": 1634, "aime24": 3230, "amc23": 2512}
    assert large.aes == pytest.approx(0.73, abs=0.005)
    assert row("2510.15110", QWEN_1B, "DLER").tokens["aime24"] == 3551


@pytest.mark.parametrize(
    ("arxiv", "base_model", "method", "accuracy", "tokens"),
    [
        ("2506.14755", QWEN_7B, "ThinkPrune", [93.1, 38.0, 50.3, 82.7], [3253, 9309, 6508, 5510]),
        ("2507.15758", "DeepScaleR-1.5B-Preview", "L1-Max", [81.9, 24.9, 72.7], [1673, 3638, 2705]),
        ("2505.10832", QWEN_1B, "ThinkPrune-4k", [83.5, 28.3, 65.4], [2723, 8072, 5040]),
    ],
)
def test_a_row_from_the_middle_of_each_other_table(
    arxiv: str, base_model: str, method: str, accuracy: list[float], tokens: list[float]
) -> None:
    found = row(arxiv, base_model, method)
    assert list(found.accuracies.values()) == accuracy
    assert list(found.tokens.values()) == tokens


def test_a_table_for_each_source() -> None:
    first, *others = published_tables()
    assert len(first.cells.lines) == 32
    assert [len(table.cells.lines) for table in others] == [len(results_of(source)) for source in sources()]
    for table in (first, *others):
        assert all(len(line) == len(table.cells.headings) for line in table.cells.lines)


def test_the_command(tmp_path: Path) -> None:
    markdown, data = tmp_path / "t.md", tmp_path / "t.json"
    done = CliRunner().invoke(main, ["published", "--markdown", str(markdown), "--json", str(data)])
    assert done.exit_code == 0, done.output
    for text in (done.output, markdown.read_text(encoding="utf-8")):
        assert "published, not measured here" in " ".join(text.split())
        assert "arXiv 2510.15110, Table 1" in text
        assert "L4S2" in text
    rows = json.loads(data.read_text(encoding="utf-8"))
    assert len(rows) == len(other_results())
    assert all(entry["published"] is True for entry in rows)
    assert rows[0]["benchmarks"]["aime24"] == {"accuracy": 55.4, "tokens": 13241}
