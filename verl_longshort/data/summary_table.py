"""What a data stage prints at its end."""

from collections.abc import Mapping

from rich.box import SIMPLE_HEAD
from rich.table import Table


def summary_table(title: str, rows: Mapping[str, object]) -> Table:
    """Names and numbers for a terminal."""
    table = Table("", title, box=SIMPLE_HEAD)
    table.columns[1].justify = "right"
    for name, value in rows.items():
        table.add_row(name, str(value))
    return table
