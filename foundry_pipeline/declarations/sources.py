"""WHAT is read: everything under `sources/<character>/`."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Literal

from pydantic import Field

from foundry_pipeline.declarations.common import Category, Declaration, Difficulty, Origin, Role
from foundry_pipeline.declarations.local import LocalText
from foundry_pipeline.declarations.network import FoundersLetters, GutenbergText, LocItems, UrlText


class Character(Declaration):
    """`sources/<character>/character.yaml`: who speaks, and the vocabulary the offline rubric reads him by."""

    character: str = Field(pattern=r"^[a-z][a-z0-9_]*$", description="short name; the folder and the asset prefix")
    name: str = Field(description="full name as shown to people")
    born: dt.date
    died: dt.date = Field(description="nothing after this day can be known to the character")
    owners: tuple[str, ...] = Field(
        description="Dagster owners of every asset of this character (team:… or an address)"
    )
    held_out_documents: tuple[str, ...] = Field(
        default=(), description="document ids kept for measuring; never in a pair, never in training"
    )
    period_markers: tuple[str, ...] = Field(
        description="words and phrases of the character's own period and register; read by the voice score"
    )
    anachronisms: tuple[str, ...] = Field(
        description="words for things the character could not know; as assertions they cost historical grounding"
    )
    self_reference: tuple[str, ...] = Field(
        default=(), description="ways in which the character rightly speaks of himself (offices, places, people)"
    )


class RuleExample(Declaration):
    """A worked case of a cleaning rule; checked when the declarations are loaded by the tests."""

    before: str
    after: str


class CleaningRule(Declaration):
    """One recorded rule of a source's cleaning, applied in the order of the list.

    `regex` replaces every match of `find` (Python `re` syntax) by `replace` (with group references);
    `text` replaces the exact string `find`. `documents` limits a rule to some documents and `expect` says how many
    places it must change in all: a correction that no longer finds its place is an error, not a silence.
    """

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    kind: Literal["regex", "text"]
    find: str = Field(min_length=1)
    replace: str
    documents: tuple[str, ...] = Field(default=(), description="empty: every document of the source")
    expect: int | None = Field(default=None, ge=0, description="number of changes over all documents, if fixed")
    reason: str
    example: RuleExample


class PypiText(Declaration):
    """Text files carried by an installed PyPI package, chosen through its metadata table."""

    kind: Literal["pypi"]
    package: str
    version: str
    metadata_file: str = Field(description="CSV inside the package, one row a document")
    text_dir: str = Field(description="folder inside the package that holds the texts")
    where: dict[str, str] = Field(description="metadata column → value that a row must have to be read")
    columns: dict[str, str] = Field(description="our field (file, title, date, url) → metadata column")


class SourceManifest(Declaration):
    """`sources/<character>/manifests/<source>.yaml`: one body of text, its rights and its cleaning."""

    source: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    title: str
    author: str
    role: Role = Field(
        default="primary", description="control texts are another person's: measured against, never trained on"
    )
    license: str
    url: str = ""
    priority: int = Field(
        default=100, description="where several sources hold a passage, that of the lowest counts (then by name)"
    )
    document_id: str = Field(
        description="pattern for ids, e.g. annual_message_{year}; {year}, {date}, {stem} are filled in"
    )
    connector: Annotated[
        PypiText | LocalText | UrlText | GutenbergText | FoundersLetters | LocItems, Field(discriminator="kind")
    ]
    cleaning: tuple[CleaningRule, ...] = ()


class TrainingPrompt(Declaration):
    """One question that a pair may be made from."""

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    category: Category
    difficulty: Difficulty
    origin: Origin
    text: str = Field(min_length=8)


class EvaluationPrompt(Declaration):
    """One question of the evaluation suite, with what a good answer must and must not contain.

    `must` and `must_not` are lists of claims; a claim is a list of alternatives, any of which (matched without regard to
    case, Unicode form or inflectional apostrophes) counts as its presence. `stance` is one or two sentences of what the
    character held, `opposed` of what he did not: the position score compares an answer with both.
    """

    id: str = Field(pattern=r"^(at|cc|gt|pd|pv|vr|[a-z]{2,8})-\d{2}$")
    category: Category
    difficulty: Difficulty
    text: str = Field(min_length=8)
    must: tuple[tuple[str, ...], ...] = ()
    must_not: tuple[tuple[str, ...], ...] = ()
    stance: str = Field(description="what the character held on it, in plain words")
    opposed: str = Field(description="the position of an opponent, or of a modern assistant")
    verified_by: tuple[PassageAnchor, ...] = Field(default=(), description="passages the answer is verified by")


class PassageAnchor(Declaration):
    """A place in a document, named by words that occur in it exactly once after cleaning."""

    document: str
    anchor: str = Field(min_length=12)


class EvaluationSuite(Declaration):
    """`sources/<character>/prompts/evaluation.yaml`."""

    suite: str
    guarded_categories: tuple[Category, ...] = Field(description="a suite without a prompt in one of these is refused")
    prompts: tuple[EvaluationPrompt, ...]


class ControlItem(Declaration):
    """One prompt with planted answers whose right order is known without any judge.

    The passages come from the corpus: `fits` answers the prompt, `other` answers another one. The three written answers
    are planted defects; `loop` is repeated by the code into a degenerate text.
    """

    id: str
    prompt: EvaluationPrompt
    fits: PassageAnchor
    other: PassageAnchor
    rival: PassageAnchor = Field(description="a passage by the author of a control source")
    archaic_nonsense: str
    modern_assistant: str
    as_an_ai: str
    loop: str


class ControlSet(Declaration):
    """`sources/<character>/controls.yaml`; the rubric's code never reads this file."""

    controls: tuple[ControlItem, ...]


class StyleProbe(Declaration):
    """One answer in two dresses: the same content in the character's manner, and in today's."""

    prompt: str = Field(description="id of the suite's question that both answer")
    period: str = Field(min_length=40)
    modern: str = Field(min_length=40)


class StyleProbes(Declaration):
    """`sources/<character>/style_probe.yaml`, where there is one; the rubric's code never reads this file."""

    probes: tuple[StyleProbe, ...] = Field(min_length=2)


class ReportedScore(Declaration):
    """A row of results reported elsewhere; never measured here."""

    row: str
    run: str
    serving: str = Field(default="", description="how it was served, in the words of the record; empty: not told")
    measured_as: str = Field(default="adapter", description="serving mode of the run that this row is set beside here")
    base: str
    dataset: str
    pairs: str
    raw: float | None = None
    corrected: float | None = None
    date: dt.date
    critical_failures: int | None = None
    categories: dict[Category, float] = {}
    corrected_categories: dict[Category, float] = {}
    difficulties: dict[Difficulty, float] = {}


class Reported(Declaration):
    """`sources/<character>/reported/*.yaml`: figures published about this character, kept apart from measured ones."""

    status: Literal["reported"]
    source: str
    scores: tuple[ReportedScore, ...] = ()
    configurations: tuple[dict[str, str | float | int | None], ...] = ()
    datasets: tuple[dict[str, str | float | int | None], ...] = ()
    costs: tuple[dict[str, str | float | int | None], ...] = ()
    pairs: tuple[dict[str, str | float | int | None], ...] = Field(
        default=(), description="figures of a dataset's pairs: dataset, measure, of (a student, a side) and the figure"
    )
