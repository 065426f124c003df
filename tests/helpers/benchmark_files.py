"""Small files with the fields and types of the real benchmark files. The problems are our own."""

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class BenchmarkFile:
    """A file, and what its rows ask and expect."""

    file: str
    rows: list[Row]
    expected: list[tuple[str, str]]
    types: Mapping[str, pa.DataType] | None = None
    """Of a parquet file, where they are not what the rows show."""

    def write(self, folder: Path, name: str | None = None) -> Path:
        path = folder / (name or self.file)
        write_rows(path, self.rows, self.types)
        return path


def write_rows(path: Path, rows: list[Row], types: Mapping[str, pa.DataType] | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        parquet.write_table(pa.Table.from_pylist(rows, pa.schema(types) if types else None), path)
    elif path.suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows), encoding="utf-8")
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def gpqa_row(number: int, **changes: str) -> Row:
    """The columns of gpqa_diamond.csv that matter, some of the many others, line breaks and commas."""
    row = {
        "Pre-Revision Question": "An older wording",
        "Pre-Revision Correct Answer": "something else",
        "Question": f"Which level lies {number} steps up,\nif a step is 2 eV?",
        "Correct Answer": f"{2 * number} eV\n",
        "Incorrect Answer 1": f"{2 * number + 1} eV",
        "Incorrect Answer 2": " none, it decays",
        "Incorrect Answer 3": f"10^-{number} eV",
        "Explanation": "Two per step.",
        "Record ID": f"rec{number}",
        "High-level domain": "Physics",
        "Subdomain": "Quantum Mechanics",
    }
    return {**row, **changes}


FILES: dict[str, BenchmarkFile] = {
    # HuggingFaceH4/MATH-500: answers are LaTeX
    "math500": BenchmarkFile(
        file="test.jsonl",
        rows=[
            {
                "problem": "Write $(1, \\pi/2)$ in other coordinates.",
                "solution": "It is $\\boxed{(3, 4)}$, not what follows.",
                "answer": "\\left( 3, \\frac{\\pi}{2} \\right)",
                "subject": "Precalculus",
                "level": 2,
                "unique_id": "test/precalculus/807.json",
            }
        ],
        expected=[("Write $(1, \\pi/2)$ in other coordinates.", "\\left( 3, \\frac{\\pi}{2} \\right)")],
    ),
    # HuggingFaceH4/aime_2024, AI-MO/aimo-validation-aime: answers are strings of digits
    "aime24": BenchmarkFile(
        file="train.parquet",
        rows=[
            {
                "id": 60,
                "problem": "Find the sum.",
                "solution": "so \\boxed{33}",
                "answer": "033",
                "url": "https://example.org/1",
                "year": "2024",
            }
        ],
        expected=[("Find the sum.", "033")],
        types={
            "id": pa.int64(),
            **dict.fromkeys(("problem", "solution", "answer", "url", "year"), pa.string()),
        },
    ),
    # Maxwell-Jia/AIME_2024: capital letters, answers are integers
    "aime24_capital": BenchmarkFile(
        file="aime_2024_problems.parquet",
        rows=[{"ID": "2024-II-4", "Problem": "Find m+n.", "Solution": "m=25 ...", "Answer": 33}],
        expected=[("Find m+n.", "33")],
        types={"ID": pa.string(), "Problem": pa.string(), "Solution": pa.string(), "Answer": pa.int64()},
    ),
    # math-ai/aime24: no answer, the solution is the boxed answer
    "aime24_boxed": BenchmarkFile(
        file="test.parquet",
        rows=[{"id": 60, "problem": "Find p.", "solution": "\\boxed{204}", "url": "https://example.org/2"}],
        expected=[("Find p.", "204")],
    ),
    # math-ai/aime25
    "aime25": BenchmarkFile(
        file="test.jsonl",
        rows=[{"problem": "Sum all bases $b>9$.", "answer": "70", "id": "0"}],
        expected=[("Sum all bases $b>9$.", "70")],
    ),
    # opencompass/AIME2025
    "aime25_question": BenchmarkFile(
        file="aime2025-I.jsonl",
        rows=[{"question": "Find x.", "answer": "588"}, {"question": "Find y.", "answer": "16"}],
        expected=[("Find x.", "588"), ("Find y.", "16")],
    ),
    # yentinglin/aime_2025: other names of the same, with an integer
    "aime25_int": BenchmarkFile(
        file="train.json",
        rows=[{"id": 0, "problem": "Find z.", "answer": 117, "solution": "", "url": "", "year": 2025}],
        expected=[("Find z.", "117")],
    ),
    # math-ai/amc23
    "amc23": BenchmarkFile(
        file="test.parquet",
        rows=[{"id": 0, "question": "How many miles?", "answer": "27", "url": "https://example.org/3"}],
        expected=[("How many miles?", "27")],
    ),
    # AI-MO/aimo-validation-amc: answers are floats
    "amc23_float": BenchmarkFile(
        file="train.parquet",
        rows=[
            {"id": 0, "problem": "How many hours?", "answer": 27.0, "url": "https://example.org/3"},
            {"id": 1, "problem": "How far?", "answer": 4.5, "url": "https://example.org/4"},
        ],
        expected=[("How many hours?", "27"), ("How far?", "4.5")],
    ),
    # openai/gsm8k
    "gsm8k": BenchmarkFile(
        file="test.jsonl",
        rows=[{"question": "How many eggs?", "answer": "16-3=<<16-3=13>>13 are left.\n#### 1,013"}],
        expected=[("How many eggs?", "1,013")],
    ),
    # nvidia/OpenMathInstruct-2
    "openmath": BenchmarkFile(
        file="train.parquet",
        rows=[
            {
                "problem": "What is 2/4?",
                "generated_solution": "so \\boxed{1/2}",
                "expected_answer": "1/2",
                "problem_source": "math",
            }
        ],
        expected=[("What is 2/4?", "1/2")],
    ),
    # Rows of verl's RL data
    "verl": BenchmarkFile(
        file="val.parquet",
        rows=[
            {
                "data_source": "math",
                "prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2+2?"}],
                "reward_model": {"style": "rule", "ground_truth": "4"},
                "extra_info": {"index": 7},
            }
        ],
        expected=[("2+2?", "4")],
    ),
}
