"""What `dbt_style_docs/` says of assets, tables, columns and groups, and what it leaves unsaid.

    described = load_descriptions(root)
    described.column("dataset", "pairs", "chosen")    → 'The answer that training prefers: the teacher's.'
    described.tables["dataset"]["pairs"].columns      → {'pair_id': 'String', …}

Docs blocks (`assets.md`, `columns.md`) hold the words, `tables.yaml` the tables of each kind with the types of their
columns, `groups.yaml` the groups with their owners. The definitions that Dagster loads and the documentation site read
the same ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import Field, ValidationError

from foundry_pipeline.chain.stage import Stage
from foundry_pipeline.declarations import Declarations
from foundry_pipeline.declarations.common import Declaration
from foundry_pipeline.declarations.yaml_file import read_yaml
from foundry_pipeline.docs.blocks import load_blocks
from foundry_pipeline.errors import DeclarationError

FOLDER = "dbt_style_docs"
M = TypeVar("M", bound=Declaration)


class Table(Declaration):
    """A Parquet table of an artifact: `columns` maps a column to its type, as Polars writes it."""

    description: str = Field(min_length=1)
    columns: dict[str, str] = Field(min_length=1)
    optional: bool = Field(default=False, description="there under some declarations only")


class Group(Declaration):
    """A group of assets; `owners` answer for those of them that belong to no character."""

    title: str = Field(min_length=1)
    description: str = Field(min_length=1)
    owners: tuple[str, ...] = ()


@dataclass(frozen=True)
class Descriptions:
    """Everything that is written about assets. `tables` is by kind and table, `groups` in the order of the chain."""

    assets: dict[str, str]
    columns: dict[str, str]
    tables: dict[str, dict[str, Table]]
    groups: dict[str, Group]

    def column(self, kind: str, table: str, name: str) -> str | None:
        """Description of a column: its own of this kind and table, its own of this table, or that of its name."""
        blocks = (f"{kind}__{table}__{name}", f"{table}__{name}", name)
        return next((self.columns[b] for b in blocks if b in self.columns), None)

    def asset(self, d: Declarations, stage: Stage) -> str:
        """What is declared of this asset's dataset or run, and what is said of its kind.

        Raises DeclarationError where the kind has no docs block.
        """
        if stage.kind not in self.assets:
            raise DeclarationError(
                f"no docs block describes assets of the kind `{stage.kind}`",
                where=f"{FOLDER}/assets.md",
                mend=f"add a block `{{% docs {stage.kind} %}}` to it",
            )
        own = own_description(d, stage)
        return f"{own}\n\n{self.assets[stage.kind]}" if own else self.assets[stage.kind]

    def owners(self, d: Declarations, stage: Stage, group: str) -> tuple[str, ...]:
        """The owners of the asset's character, else those of its group; none where neither is declared."""
        if stage.character:
            return d.characters[stage.character].character.owners
        return self.groups[group].owners if group in self.groups else ()


def own_description(d: Declarations, stage: Stage) -> str:
    """What the YAML of an asset's dataset or run says of it, in one line; empty where there is none."""
    if stage.kind == "dataset":
        return " ".join(d.datasets[stage.name].description.split())
    run = run_of(d, stage)
    return " ".join(d.runs[run].description.split()) if run is not None else ""


def run_of(d: Declarations, stage: Stage) -> str | None:
    """The run that an asset belongs to, or None: `madison_r2` of `madison_r2_serving_matrix`."""
    run = stage.name.removesuffix(f"_{stage.kind}")
    return run if run != stage.name and run in d.runs else None


def load_descriptions(root: Path) -> Descriptions:
    """Read `dbt_style_docs/` of a project. Raises DeclarationError naming file and field."""
    folder = root / FOLDER
    tables = {
        kind: {name: _valid(Table, value, folder / "tables.yaml", f"{kind}.{name}") for name, value in named.items()}
        for kind, named in _mapping(folder / "tables.yaml").items()
    }
    groups = _mapping(folder / "groups.yaml")
    return Descriptions(
        load_blocks(root, "assets"),
        load_blocks(root, "columns"),
        tables,
        {name: _valid(Group, value, folder / "groups.yaml", name) for name, value in groups.items()},
    )


def _mapping(path: Path) -> dict[str, dict[str, object]]:
    data = read_yaml(path)
    if not isinstance(data, dict) or not all(isinstance(v, dict) for v in data.values()):
        raise DeclarationError("expected a mapping of mappings", where=str(path), mend="correct the file")
    return data


def _valid(model: type[M], value: object, path: Path, where: str) -> M:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join([where, *map(str, first["loc"])])
        raise DeclarationError(
            f"`{field}`: {first['msg']}", where=str(path), mend="correct the field, then run `foundry docs`"
        ) from error


def undescribed(described: Descriptions, kinds: Mapping[str, str]) -> list[str]:
    """What of the declared kinds and tables no docs block describes. `kinds` maps each kind in use to its group."""
    out = []
    for kind, group in kinds.items():
        if kind not in described.assets:
            out.append(f"kind `{kind}`: no block `{{% docs {kind} %}}` in {FOLDER}/assets.md")
        if group not in described.groups:
            out.append(f"group `{group}`: no entry in {FOLDER}/groups.yaml")
        for name, table in described.tables.get(kind, {}).items():
            out += [
                f"column `{column}` of table `{name}` of kind `{kind}`: no block `{{% docs {column} %}}` in "
                f"{FOLDER}/columns.md"
                for column in table.columns
                if described.column(kind, name, column) is None
            ]
    return out
