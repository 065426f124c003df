"""A recipe that is killed at random moments and started again each time must end as one that nobody disturbed.

    python tests/faults/killed_recipe.py tiny /tmp/killed --kills 20 --seed 0 [key=value ...]

Runs RECIPE once to its end in FOLDER/undisturbed, then in FOLDER/killed: there it is killed by SIGKILL at moments drawn
from the seed, each time the launcher alone, one process of it, or all of them at once, as when the power goes. Then it
compares the two folders (`helpers.killed`). Prints a table of the kills; exit status 1 when anything differs.
"""

import random
import sys
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))

from helpers.killed import SAME, differences, gaps_of, run_killed, run_to_end

from verl_longshort.recipe.recipe import find_recipe


@click.command()
@click.argument("recipe")
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("overrides", nargs=-1)
@click.option("--kills", default=20, show_default=True)
@click.option("--seed", default=0, show_default=True, help="Of the moments and of what is killed.")
@click.option("--same", multiple=True, default=SAME, show_default=True, help="Files whose content must be the same.")
@click.option("--hours", default=6.0, show_default=True, help="Time limit of one start.")
def main(
    recipe: str, folder: Path, overrides: tuple[str, ...], kills: int, seed: int, same: tuple[str, ...], hours: float
) -> None:
    """Kill RECIPE in FOLDER."""
    console, draw, file = Console(), random.Random(seed), find_recipe(recipe)
    undisturbed, killed = folder.absolute() / "undisturbed", folder.absolute() / "killed"
    seconds = run_to_end(file, undisturbed, overrides, timeout_s=3600 * hours)
    console.print(f"undisturbed: {seconds:.0f} s", highlight=False)
    gaps = gaps_of(seconds, kills, draw)
    done = run_killed(file, killed, overrides, gaps=gaps, draw=draw, timeout_s=3600 * hours)
    table = Table("kill", "seconds after the start", "killed", "running stages", "done")
    for number, each in enumerate(done, start=1):
        running = ", ".join(each.running) or "none"
        table.add_row(str(number), f"{each.after_s:.1f}", each.kind, running, str(len(each.done)))
    console.print(table)
    found = differences(undisturbed, killed, done, same)
    for line in found or ["the same"]:
        console.print(line, highlight=False, markup=False)
    if len(done) < kills:
        console.print(f"the recipe ended after {len(done)} of {kills} kills", highlight=False)
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
