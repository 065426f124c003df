"""`longshort push`; what it sends: `docs/share.md`."""

from pathlib import Path

import click
from longshort_reward.errors import UserError
from longshort_reward.settings import Settings
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from verl_longshort.base.requirements import Requirements
from verl_longshort.base.stage import OptionStage
from verl_longshort.sharing.push import Upload, push, uploads_of


class PushSettings(Settings):
    """Options of the command."""

    folder: Path
    repository: str
    private: bool
    replace: bool
    dry_run: bool


class PushStage(OptionStage[PushSettings, list[Upload]]):
    """Send an exported pair to the Hugging Face Hub, as one repository. Without a token it says what it would send."""

    name = "push"
    Settings = PushSettings
    parameters = (
        click.Argument(["folder"], type=click.Path(path_type=Path)),
        click.Argument(["repository"], metavar="OWNER/NAME"),
        click.Option(["--private"], is_flag=True, help="Make a new repository private."),
        click.Option(["--replace"], is_flag=True, help="Remove whatever else the repository holds."),
        click.Option(["--dry-run"], is_flag=True, help="Say what would be sent, and send nothing."),
    )

    def inputs(self, settings: PushSettings) -> list[Upload]:
        """The files."""
        if settings.repository.count("/") != 1:
            raise UserError("REPOSITORY", settings.repository, "give owner/name, as the hub has it")
        return uploads_of(settings.folder.expanduser())

    def requirements(self, settings: PushSettings, inputs: list[Upload]) -> Requirements:
        """Files."""
        return Requirements(command=self.name)

    def run(self, settings: PushSettings, inputs: list[Upload], console: Console) -> str | None:
        """Send them, or show them; returns the address of the commit."""
        from huggingface_hub import HfApi, get_token

        without = settings.dry_run or get_token() is None
        if without:
            table = Table("file", "size", box=SIMPLE_HEAD)
            table.columns[1].justify = "right"
            for upload in inputs:
                table.add_row(upload.name, decimal(upload.size))
            console.print(table)
        total = f"{len(inputs)} files, {decimal(sum(upload.size for upload in inputs))}"
        if without:
            why = "" if settings.dry_run else ": there is no token (HF_TOKEN, or `hf auth login`)"
            console.print(f"{total}: nothing was sent{why}", highlight=False, soft_wrap=True)
            return None
        address = push(HfApi(), settings.repository, inputs, private=settings.private, replace=settings.replace)
        console.print(f"{total}: {address}", highlight=False, soft_wrap=True)
        return address
