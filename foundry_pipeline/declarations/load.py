"""Read every declaration, then check every name one declaration uses of another.

Two passes: each file into its typed model (an error names file, field, value and what was allowed), then the
cross-references. Nothing runs before both have passed, and all faults of a pass are reported together.
"""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from dataclasses import field as data_field
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError

from foundry_pipeline.declarations import assets as a
from foundry_pipeline.declarations import generation as g
from foundry_pipeline.declarations import sources as s
from foundry_pipeline.declarations.common import CATEGORIES
from foundry_pipeline.declarations.probes import ProbeSet
from foundry_pipeline.declarations.remote import PriceTable
from foundry_pipeline.declarations.reported import ReportedFigures
from foundry_pipeline.declarations.seeds import MARK, Variant, expand
from foundry_pipeline.declarations.yaml_file import read_yaml
from foundry_pipeline.errors import DeclarationError

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class CharacterFiles:
    """Everything below `sources/<character>/`."""

    folder: Path
    character: s.Character
    constitution: str
    manifests: dict[str, s.SourceManifest]
    training_prompts: tuple[s.TrainingPrompt, ...]
    suite: s.EvaluationSuite
    controls: s.ControlSet
    reported: tuple[s.Reported, ...]
    introspection: g.Introspection | None = None
    probes: ProbeSet | None = None
    style_probes: tuple[s.StyleProbe, ...] = ()

    @property
    def reported_scores(self) -> tuple[s.ReportedScore, ...]:
        return tuple(row for document in self.reported for row in document.scores)


@dataclass(frozen=True)
class Declarations:
    """All declarations of a project, by name, plus the file each came from (for error messages)."""

    root: Path
    profile: a.Profile
    characters: dict[str, CharacterFiles]
    datasets: dict[str, a.Dataset]
    runs: dict[str, a.Run]
    evaluations: dict[str, a.Evaluation]
    files: dict[str, Path]
    figures: tuple[ReportedFigures, ...] = ()
    variants: dict[str, Variant] = data_field(default_factory=dict)

    @property
    def declared_runs(self) -> dict[str, a.Run]:
        """The runs as their files declare them: of each its first combination of seeds."""
        return {
            name: run for name, run in self.runs.items() if name not in self.variants or self.variants[name].primary
        }

    def run_and_partition(self, name: str) -> tuple[str, str | None]:
        """Declared run and partition of a run of the chain: `keeper_first@43` → `keeper_first`, `43`."""
        variant = self.variants.get(name)
        return (name, None) if variant is None else (variant.run, variant.partition)

    def base_model(self, base: str) -> str:
        """Name of the model that stands behind a declared base in this profile."""
        return self.profile.bases[base]


class _Faults:
    """Collects faults so that a user mends them in one go."""

    def __init__(self, root: Path) -> None:
        self.root, self.first = root, ""
        self.lines: list[str] = []

    def add(self, path: Path, field: str, what: str) -> None:
        shown = path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else str(path)
        self.first = self.first or f"{shown}, field `{field}`"
        self.lines.append(f"{shown}: `{field}`: {what}")

    def stop(self) -> None:
        if self.lines:
            raise DeclarationError(
                "the declarations cannot be used:\n    " + "\n    ".join(self.lines),
                where=self.first,
                mend="correct the named field, then run `foundry check`",
            )


def _parse(model: type[M], path: Path, faults: _Faults, *, drop: Iterable[str] = ()) -> M | None:
    data = read_yaml(path)
    return _validate(model, data, path, faults, drop=drop)


def _validate(model: type[M], data: Any, path: Path, faults: _Faults, *, drop: Iterable[str] = ()) -> M | None:
    if not isinstance(data, Mapping):
        faults.add(path, "(whole file)", f"expected a mapping of fields, found {type(data).__name__}")
        return None
    data = {k: v for k, v in data.items() if k not in set(drop)}
    try:
        return model.model_validate(data)
    except ValidationError as error:
        for item in error.errors():
            field = ".".join(str(part) for part in item["loc"]) or "(whole file)"
            given = "" if item["type"] in ("missing", "extra_forbidden") else f" (given: {_short(item.get('input'))})"
            message = item["msg"]
            if item["type"] == "extra_forbidden":
                allowed = ", ".join(sorted(_fields_at(model, item["loc"][:-1])))
                message = f"no such field; allowed: {allowed}"
            faults.add(path, field, f"{message}{given}")
        return None


def _fields_at(annotation: Any, way: tuple[int | str, ...]) -> set[str]:
    """Names of the fields that may stand at a place below a model: the union of what its possible models have."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        if not way:
            return set(annotation.model_fields)
        field = annotation.model_fields.get(str(way[0]))
        if field is not None:
            return _fields_at(field.annotation, way[1:])
        # A step that is no field names the kind that was chosen among several (`kind: url`).
        chosen = annotation.model_fields.get("kind")
        return _fields_at(annotation, way[1:]) if chosen and str(way[0]) in get_args(chosen.annotation) else set()
    inside = get_args(annotation)
    if get_origin(annotation) in (dict, tuple, list):
        return set().union(*(_fields_at(a, way[1:]) for a in inside)) if way else set()
    return set().union(*(_fields_at(a, way) for a in inside))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "…"


def _choice(name: str, allowed: Iterable[str]) -> str:
    options = sorted(allowed)
    close = difflib.get_close_matches(name, options, n=1)
    hint = f"; did you mean `{close[0]}`?" if close else ""
    return f"`{name}` is not declared; allowed: {', '.join(options) or 'nothing is declared yet'}{hint}"


def _load_character(folder: Path, faults: _Faults) -> CharacterFiles | None:
    character = _parse(s.Character, folder / "character.yaml", faults)
    constitution = folder / "constitution.md"
    if not constitution.is_file():
        faults.add(constitution, "(whole file)", "is missing; every character has a constitution")
    manifests: dict[str, s.SourceManifest] = {}
    for path in sorted((folder / "manifests").glob("*.yaml")):
        manifest = _parse(s.SourceManifest, path, faults)
        if manifest is not None:
            if manifest.source != path.stem:
                faults.add(path, "source", f"`{manifest.source}` must equal the file's name, `{path.stem}`")
            manifests[manifest.source] = manifest
    if not any(m.role == "primary" for m in manifests.values()):
        faults.add(folder / "manifests", "role", "no source with role `primary`; a character needs one")
    prompts_path = folder / "prompts" / "training.yaml"
    prompts = []
    listed = read_yaml(prompts_path)
    for number, entry in enumerate((listed or {}).get("prompts") or () if isinstance(listed, Mapping) else ()):
        prompt = _validate(s.TrainingPrompt, entry, prompts_path, faults)
        if prompt is None:
            faults.add(prompts_path, f"prompts[{number}]", "see above")
        else:
            prompts.append(prompt)
    if not prompts:
        faults.add(prompts_path, "prompts", "holds no prompt")
    introspection_path = folder / "prompts" / "introspection.yaml"
    introspection = _parse(g.Introspection, introspection_path, faults) if introspection_path.is_file() else None
    suite_path = folder / "prompts" / "evaluation.yaml"
    suite = _parse(s.EvaluationSuite, suite_path, faults)
    controls_path = folder / "controls.yaml"
    controls = _parse(s.ControlSet, controls_path, faults)
    probe_path = folder / "style_probe.yaml"
    style_probes = _parse(s.StyleProbes, probe_path, faults) if probe_path.is_file() else None
    asked = {p.id for p in suite.prompts} if suite else set()
    for probe in style_probes.probes if style_probes and suite else ():
        if probe.prompt not in asked:
            faults.add(probe_path, "prompt", f"`{probe.prompt}` is no question of the suite")
    reported = [_parse(s.Reported, path, faults) for path in sorted((folder / "reported").glob("*.yaml"))]
    for path, ids in (
        (prompts_path, [p.id for p in prompts]),
        (suite_path, [p.id for p in suite.prompts] if suite else []),
        (controls_path, [c.id for c in controls.controls] if controls else []),
    ):
        for twice in sorted({i for i in ids if ids.count(i) > 1}):
            faults.add(path, "id", f"`{twice}` is used twice")
    if suite:
        held = {p.category for p in suite.prompts}
        for category in suite.guarded_categories:
            if category not in held:
                faults.add(suite_path, "guarded_categories", f"no prompt in the guarded category `{category}`")
    if character and character.character != folder.name:
        faults.add(folder / "character.yaml", "character", f"must equal the folder's name, `{folder.name}`")
    if character is None or suite is None or controls is None or not constitution.is_file():
        return None
    return CharacterFiles(
        folder=folder,
        character=character,
        constitution=constitution.read_text(encoding="utf-8"),
        manifests=manifests,
        training_prompts=tuple(prompts),
        suite=suite,
        controls=controls,
        reported=tuple(r for r in reported if r is not None),
        introspection=introspection,
        probes=_parse(ProbeSet, probes_path, faults) if (probes_path := folder / "probes.yaml").is_file() else None,
        style_probes=style_probes.probes if style_probes else (),
    )


def _inherit(path: Path, folder: Path, faults: _Faults, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Fields of a run with those of the block it inherits below its own."""
    data = read_yaml(path)
    if not isinstance(data, Mapping):
        faults.add(path, "(whole file)", "expected a mapping of fields")
        return {}
    data = dict(data)
    parent = data.pop("inherits", None)
    if parent is None:
        return data
    parent_path = folder / f"{parent}.yaml"
    if parent_path in (*seen, path):
        faults.add(path, "inherits", f"`{parent}` inherits itself")
        return data
    if not parent_path.is_file():
        options = [p.relative_to(folder).with_suffix("").as_posix() for p in folder.rglob("*.yaml")]
        faults.add(path, "inherits", _choice(str(parent), options))
        return data
    return {**_inherit(parent_path, folder, faults, (*seen, path)), **data}


def _named(model: type[M], folder: Path, field: str, faults: _Faults, files: dict[str, Path]) -> dict[str, M]:
    out: dict[str, M] = {}
    for path in sorted(folder.glob("*.yaml")):
        item = _validate(model, _inherit(path, folder, faults), path, faults)
        if item is None:
            continue
        name = str(getattr(item, field))
        if name != path.stem:
            faults.add(path, field, f"`{name}` must equal the file's name, `{path.stem}`")
        out[name] = item
        files[name] = path
    return out


def load(root: Path, profile: str = "laptop") -> Declarations:
    """Load and cross-check the project at `root` under a profile.

    Raises DeclarationError listing every fault found, by file and field.
    """
    faults = _Faults(root)
    files: dict[str, Path] = {}
    profiles = sorted((root / "assets" / "profiles").glob("*.yaml"))
    profile_path = root / "assets" / "profiles" / f"{profile}.yaml"
    if profile_path not in profiles:
        raise DeclarationError(
            f"the profile {_choice(profile, [p.stem for p in profiles])}",
            where=str(root / "assets" / "profiles"),
            mend="set FOUNDRY_PROFILE to one of them",
        )
    chosen = _parse(a.Profile, profile_path, faults)
    if (prices := root / "assets" / "prices.yaml").is_file():
        _parse(PriceTable, prices, faults)
    figures = [_parse(ReportedFigures, path, faults) for path in sorted((root / "sources" / "reported").glob("*.yaml"))]
    characters: dict[str, CharacterFiles] = {}
    for folder in sorted(p for p in (root / "sources").iterdir() if (p / "character.yaml").is_file()):
        found = _load_character(folder, faults)
        if found is not None:
            characters[found.character.character] = found
    datasets = _named(a.Dataset, root / "assets" / "datasets", "dataset", faults, files)
    runs = _named(a.Run, root / "assets" / "runs", "run", faults, files)
    evaluations = _named(a.Evaluation, root / "assets" / "evals", "evaluation", faults, files)
    faults.stop()
    assert chosen is not None  # faults.stop() has raised otherwise
    declarations = Declarations(
        root, chosen, characters, datasets, runs, evaluations, files, tuple(f for f in figures if f is not None)
    )
    _cross_check(declarations, profile_path, faults)
    faults.stop()
    with_seeds, suites, variants = expand(runs, evaluations)
    return replace(declarations, runs=with_seeds, evaluations=suites, variants=variants)


def _cross_check(d: Declarations, profile_path: Path, faults: _Faults) -> None:
    for base, model in d.profile.bases.items():
        if model not in d.profile.models:
            faults.add(profile_path, f"bases.{base}", _choice(model, d.profile.models))
    if d.profile.student not in d.profile.bases:
        faults.add(profile_path, "student", _choice(d.profile.student, d.profile.bases))
    missing = set(CATEGORIES) - set(d.profile.teacher.serves) - set(d.profile.teacher.cannot_serve)
    if missing:
        faults.add(profile_path, "teacher.serves", f"says nothing of {', '.join(sorted(missing))}")
    for name, dataset in d.datasets.items():
        path = d.files[name]
        _own(d, path, name, dataset.character, faults)
        for number, part in enumerate(dataset.parts):
            if part.dataset is not None and part.dataset not in d.datasets:
                faults.add(path, f"parts[{number}].dataset", _choice(part.dataset, d.datasets))
            for student in [*part.students, *([part.rejected_from] if part.rejected_from else [])]:
                if student != "base" and student not in d.runs:
                    faults.add(path, f"parts[{number}]", _choice(student, [*d.runs, "base"]))
        if dataset.order == "source_first" and "source_enriched" not in _origins(d, dataset):
            faults.add(
                path, "order", "`source_first` needs a part with the origin `source_enriched`, and there is none"
            )
    for name, run in d.runs.items():
        path = d.files[name]
        _own(d, path, name, run.character, faults)
        if MARK in name:
            faults.add(path, "run", f"`{MARK}` stands before the seeds of a run, and in no name")
        for field, value, allowed in (
            ("base", run.base, d.profile.bases),
            ("dataset", run.dataset, d.datasets),
            ("evaluation", run.evaluation, d.evaluations),
            ("start_from", run.start_from, d.runs),
        ):
            if value is not None and value not in allowed:
                faults.add(path, field, _choice(value, allowed))
        trained_on = d.datasets.get(run.dataset)
        if trained_on is not None:
            wanted = "sft" if run.method == "sft" else "preference"
            if trained_on.method != wanted:
                faults.add(
                    path, "dataset", f"`{run.dataset}` is a {trained_on.method} dataset, {run.method} needs {wanted}"
                )
            if trained_on.character != run.character:
                faults.add(
                    path, "dataset", f"`{run.dataset}` is {trained_on.character}'s, the run is {run.character}'s"
                )
        if run.character in d.characters:
            known = {row.row: row.measured_as for row in d.characters[run.character].reported_scores}
            evaluation = d.evaluations.get(run.evaluation)
            served = {*(run.modes or (evaluation.modes if evaluation else ())), *run.checkpoints}
            for row in run.reported:
                if row not in known:
                    faults.add(path, "reported", _choice(row, known))
                elif served and known[row] not in served:
                    faults.add(
                        path, "modes", f"the reported row `{row}` is set beside mode {_choice(known[row], served)}"
                    )
        if run.modes is not None and "base" not in run.modes:
            faults.add(path, "modes", "must hold `base`: every other mode is compared with it")
    combined = {n for s in d.datasets.values() for p in s.parts if p.dataset for n in (s.dataset, p.dataset)}
    for name in d.profile.size_factors:
        if name not in d.datasets:
            faults.add(profile_path, "size_factors", _choice(name, d.datasets))
        elif name in combined:
            faults.add(profile_path, f"size_factors.{name}", "shares its pairs with another dataset: one size for both")
    told = {figure.figure for document in d.figures for figure in document.figures}
    for files in d.characters.values():
        for probe in files.probes.probes if files.probes else ():
            if probe.reported is not None and probe.reported not in told:
                faults.add(files.folder / "probes.yaml", f"probes.{probe.id}.reported", _choice(probe.reported, told))
    for name, evaluation in d.evaluations.items():
        _own(d, d.files[name], name, evaluation.character, faults)
        if "base" not in evaluation.modes:
            faults.add(d.files[name], "modes", "must hold `base`: every other mode is compared with it")
    _cycles(d, faults)


def _origins(d: Declarations, dataset: a.Dataset, seen: frozenset[str] = frozenset()) -> set[str]:
    """Origins of every pair that a dataset may hold, through those it takes over."""
    out: set[str] = set()
    for part in dataset.parts:
        if part.rejected_from:
            out.add("on_policy")
        elif part.origin:
            out.add(part.origin)
        elif part.dataset in d.datasets and part.dataset not in seen:
            out |= _origins(d, d.datasets[part.dataset], seen | {part.dataset})
    return out


def _own(d: Declarations, path: Path, name: str, character: str, faults: _Faults) -> None:
    if character not in d.characters:
        faults.add(path, "character", _choice(character, d.characters))
    elif not fnmatch.fnmatch(name, f"{character}_*"):
        faults.add(path, "(file name)", f"`{name}` must begin with its character, `{character}_`")


def _cycles(d: Declarations, faults: _Faults) -> None:
    edges: dict[str, set[str]] = {}
    for name, dataset in d.datasets.items():
        needs = {p.dataset for p in dataset.parts if p.dataset}
        needs |= {x for p in dataset.parts for x in p.students if x != "base"}
        needs |= {p.rejected_from for p in dataset.parts if p.rejected_from}
        edges[name] = {n for n in needs if n}
    for name, run in d.runs.items():
        edges[name] = {run.dataset, *([run.start_from] if run.start_from else [])}
    state: dict[str, int] = {}

    def visit(node: str, way: tuple[str, ...]) -> None:
        if state.get(node) == 2:
            return
        if state.get(node) == 1:
            circle = " → ".join((*way[way.index(node) :], node))
            faults.add(d.files[node], "parts" if node in d.datasets else "dataset", f"goes in a circle: {circle}")
            return
        state[node] = 1
        for needed in sorted(edges.get(node, ())):
            visit(needed, (*way, node))
        state[node] = 2

    for node in sorted(edges):
        visit(node, ())
