"""`longshort export`; settings: `config/export.yaml`; what it writes: `docs/share.md`."""

from rich.console import Console

from verl_longshort.base.dry_run import absolute, is_planned
from verl_longshort.base.folders import lock_file, real_folder
from verl_longshort.base.lock import Lock
from verl_longshort.base.requirements import Product, Requirements
from verl_longshort.base.stage import ConfigStage
from verl_longshort.sharing.export import check_target, export_pair, told
from verl_longshort.sharing.settings import ExportSettings
from verl_longshort.sharing.source import Source, find_source


class ExportStage(ConfigStage[ExportSettings, Source | None]):
    """Write a pair as one folder, with pair.json and a card, to serve, evaluate and share (config/export.yaml)."""

    name = "export"
    config = "export"
    Settings = ExportSettings

    def inputs(self, settings: ExportSettings) -> Source | None:
        """The pair; None for one that stages before will write."""
        check_target(real_folder(settings.output_dir, key="longshort.output_dir"))
        given = (settings.run, settings.models.long, settings.models.short)
        return None if any(is_planned(path) for path in given if path is not None) else find_source(settings)

    def lock(self, settings: ExportSettings) -> Lock:
        """Of the folder that is written."""
        folder = real_folder(settings.output_dir, key="longshort.output_dir")
        return Lock(file=lock_file(folder), key="longshort.output_dir", value=folder, holder="another export")

    def requirements(self, settings: ExportSettings, inputs: Source | None) -> Requirements:
        """Files."""
        folder = absolute(settings.output_dir)
        return Requirements(command=self.name, products=(Product(path=folder),))

    def run(self, settings: ExportSettings, inputs: Source | None, console: Console) -> None:
        """Write the folder."""
        target = real_folder(settings.output_dir, key="longshort.output_dir")
        source = inputs or find_source(settings)
        record = export_pair(settings, source, target)
        console.print(told(record, target), highlight=False, soft_wrap=True, markup=False)
