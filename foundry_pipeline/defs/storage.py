"""Where Dagster keeps runs, events and schedules: SQLite files beside the project, or the shared database by one setting.

    storage:
      custom:
        module: foundry_pipeline.defs.storage
        class: FoundryStorage
        config: {base_dir: .dagster}

`dagster.yaml` cannot choose between two storages, so it names this one, which reads FOUNDRY_DATABASE each time an
instance is opened: by `dagster`, `dagster dev`, the daemon, the web server, a run's own process. The configuration that
Dagster hands from process to process and shows holds the folder, and neither URL nor password.
"""

from __future__ import annotations

import os

import dagster as dg
from dagster._core.storage.base_storage import DagsterStorage
from dagster._serdes import ConfigurableClass, ConfigurableClassData

from foundry_pipeline.defs.sqlite_storage import HeldSqliteStorage
from foundry_pipeline.models.money.processes import this_node
from foundry_pipeline.settings import DATABASE

NODE_TAG = "foundry/node"
"""On which machine a run is worked on. Only there can anybody see whether its process is still alive."""


class FoundryStorage(DagsterStorage, ConfigurableClass):
    """Never made itself: `from_config_value` gives Dagster's own storage of the one kind or the other.

    Raises FoundryError where the setting names no database that can be used.
    """

    @classmethod
    def config_type(cls) -> dict[str, dg.Field]:
        return {"base_dir": dg.Field(dg.StringSource, description="folder of the SQLite files")}

    @classmethod
    def from_config_value(  # type: ignore[override]
        cls, inst_data: ConfigurableClassData, config_value: dict[str, str]
    ) -> DagsterStorage:
        if shared():
            return _shared(inst_data)
        return HeldSqliteStorage.from_local(config_value["base_dir"], inst_data)


def shared() -> bool:
    """Whether several machines may use this instance."""
    return bool(os.environ.get(DATABASE, "").strip())


def note_node(context: dg.AssetExecutionContext) -> None:
    """Write down which machine works on a run, where other machines see it as well."""
    if shared() and context.run.tags.get(NODE_TAG) != this_node():
        context.instance.add_run_tags(context.run_id, {NODE_TAG: this_node()})


def of_this_node(run: dg.DagsterRun) -> bool:
    """Whether a run's process would be among those of this machine."""
    return not shared() or run.tags.get(NODE_TAG) == this_node()


def _shared(inst_data: ConfigurableClassData) -> DagsterStorage:
    """Dagster's tables in the shared database, made by whoever comes first."""
    from foundry_pipeline.errors import FoundryError
    from foundry_pipeline.lineage import postgres

    url = postgres.database_url()
    try:
        from dagster_postgres import DagsterPostgresStorage
    except ModuleNotFoundError as error:
        raise FoundryError(
            "Dagster reaches PostgreSQL through a package that is not installed (dagster-postgres)",
            where=postgres.shown(url),
            mend="pip install -c constraints.txt -e '.[postgres]'",
        ) from error
    named = postgres.read_url(url).render_as_string(hide_password=False)
    # Dagster makes its tables without a lock: two that open a new database at once would fail each other.
    with postgres.alone(url, "Dagster's storage"):
        storage = DagsterPostgresStorage(postgres_url=named, inst_data=inst_data)
    return storage
