"""What the report of a run is written from: plain values, no artifact, no path, no open file.

`gather.py` fills these from a chain; `render_report` reads nothing else, so that a page can be made, and tested, from
values alone. A piece that does not exist (a run that was not trained, a character without reported figures) is None or
empty here and absent on the page.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

BASE_MODE = "base"
MODE_TITLES = {
    "base": "base, untuned",
    "adapter": "adapter on base",
    "merged": "merged",
    "f16": "GGUF F16",
    "q8_0": "GGUF Q8_0",
    "q5_k_m": "GGUF Q5_K_M",
    "q4_k_m": "GGUF Q4_K_M",
}


@dataclass(frozen=True)
class BaseModel:
    """The weights a run starts from. `declared` is the name its declaration uses; a stand-in answers to it."""

    declared: str
    title: str
    license: str
    parameters: int
    stand_in: bool


@dataclass(frozen=True)
class Training:
    """One adapter's training. `facts` are the trainer's; `history` its figures, one entry a step: {step, loss, …}."""

    method: str
    seed: int | None
    declared: dict[str, Any]
    effective: dict[str, Any]
    history: list[dict[str, Any]]
    facts: dict[str, Any]
    libraries: dict[str, str]


@dataclass(frozen=True)
class DataSet:
    """The pairs a run was trained on.

    `counts` maps category → origin → rows; `unserved` category → why the teacher has no answer to it; `parts` are the
    recipe's, with what each wanted and got; `verdict` is that of the data checks beside the dataset.
    """

    name: str
    description: str
    content_hash: str
    rows: int
    effective_rows: int
    counts: dict[str, dict[str, int]]
    unserved: dict[str, str] = field(default_factory=dict)
    parts: list[dict[str, Any]] = field(default_factory=list)
    students: dict[str, int] = field(default_factory=dict)
    voice_contrast: float | None = None
    verdict: dict[str, Any] | None = None


@dataclass(frozen=True)
class Sieve:
    """Pairs lost on the way to all datasets of a character: rule or reason → how many."""

    candidates: int
    kept: int
    dropped: dict[str, int]
    unanswered: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class SourceUse:
    """A document: its passages, how many of them the run's dataset uses, and through how many pairs."""

    document_id: str
    title: str
    date: str
    url: str
    license: str
    raw_sha256: str
    role: str
    held_out: bool
    passages: int
    used: int
    pairs: int


@dataclass(frozen=True)
class Step:
    """One artifact between the score and the sources; `spine` marks the direct way."""

    name: str
    kind: str
    content_hash: str
    seconds: float | None
    holds: str = ""
    spine: bool = True


@dataclass(frozen=True)
class Reported:
    """Figures published elsewhere about this character; `rows` as declared, `mine` the names of this run's rows."""

    sources: tuple[str, ...]
    rows: list[dict[str, Any]]
    mine: tuple[str, ...] = ()


@dataclass(frozen=True)
class Served:
    """How a run is served: `rows` of its serving matrix, `parity` as measured, the `verdict` beside the GGUF files.

    Each may be missing, and so empty or None: a run may have been evaluated before its matrix was made.
    """

    rows: list[dict[str, Any]]
    parity: dict[str, Any] | None = None
    verdict: dict[str, Any] | None = None


@dataclass(frozen=True)
class Probed:
    """Answers to the questions that tempt a character out of its part: rows of `probe_rates` and `mode_differences`.

    `told` maps a named prompt to the rate reported of one like it, `questions` to its text.
    """

    rates: list[dict[str, Any]]
    differences: list[dict[str, Any]]
    questions: dict[str, str] = field(default_factory=dict)
    told: dict[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True)
class ReportData:
    """Everything that the page of one run says.

    `summary` is the evaluation's summary.json, `scores` the rows of its scores.parquet, `prompts` prompt id → question.
    `same_as` lists runs that this profile cannot tell from this one.
    """

    run: str
    description: str
    character: str
    profile: str
    profile_description: str
    base: BaseModel
    confidence: float
    summary: dict[str, Any]
    scores: list[dict[str, Any]]
    prompts: dict[str, str]
    evaluated: str = ""
    evaluation_facts: dict[str, Any] = field(default_factory=dict)
    held_out: tuple[str, ...] = ()
    training: Training | None = None
    dataset: DataSet | None = None
    sieve: Sieve | None = None
    sources: list[SourceUse] = field(default_factory=list)
    lineage: list[Step] = field(default_factory=list)
    reported: Reported | None = None
    served: Served | None = None
    probed: Probed | None = None
    same_as: tuple[str, ...] = ()
    character_id: str = ""

    @property
    def modes(self) -> list[str]:
        """Serving modes, the untuned base first, the others in the order they were declared in."""
        return sorted(self.summary["modes"], key=lambda mode: mode != BASE_MODE)

    @property
    def tuned(self) -> list[str]:
        return [mode for mode in self.modes if mode != BASE_MODE]

    @property
    def judge(self) -> str:
        return str(self.summary["judge"]["name"])


def mode_title(mode: str) -> str:
    return MODE_TITLES.get(mode, mode)


def label(name: str) -> str:
    """`private_voice` as a reader sees it: private voice."""
    return name.replace("_", " ")
