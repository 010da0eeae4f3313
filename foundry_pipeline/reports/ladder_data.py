"""What the page of the ladder is written from: plain values, measured apart from reported.

gather_ladder(d, chain)                     → LadderData
gather_ladder(d, chain).rungs[0].breaks     → {"count": 2, "n": 36, "rate": 0.056, "low": 0.015, "high": 0.181}
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import polars as pl

from foundry_pipeline.breaks import character_breaks
from foundry_pipeline.chain.costs import costs
from foundry_pipeline.chain.engine import Chain
from foundry_pipeline.chain.ladder import ladder
from foundry_pipeline.declarations import Declarations
from foundry_pipeline.evaluation.comparison import family, score_rows
from foundry_pipeline.reports.data import mode_title
from foundry_pipeline.statistics.proportions import wilson
from foundry_pipeline.statistics.verdict import Comparison, compare

MOST_COMPARED = 24  # rows that the highest is compared with; each takes a bootstrap


@dataclass(frozen=True)
class Rung:
    """One row of the ladder. `measured` and `reported` are those of `chain/ladder.py`, either may be None.

    `breaks` is the share of its answers that fall out of the part; `against_highest` the comparison with the row that
    scores highest, corrected for how many are compared; `same` names rows that stand on the very same adapter.
    """

    run: str
    mode: str
    measured: dict[str, Any] | None
    reported: dict[str, Any] | None
    row: dict[str, Any]
    breaks: dict[str, Any] | None = None
    against_highest: Comparison | None = None
    same: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        return f"{self.run}, {mode_title(self.mode)}"

    @property
    def short(self) -> str:
        """The run without the character's name, for a place beside a point."""
        name = self.run.split("_", 1)[-1]
        return name if self.mode == "adapter" else f"{name} {self.mode}"


@dataclass(frozen=True)
class LadderData:
    """Everything that the page says. `reported_rates` maps a run to the learning rate told of it elsewhere."""

    profile: str
    profile_description: str
    judges: tuple[str, ...]
    reported_judges: tuple[str, ...]
    reported_sources: tuple[str, ...]
    stand_ins: tuple[str, ...]
    confidence: float
    rungs: list[Rung]
    build_seconds: float
    reported_costs: list[dict[str, Any]] = field(default_factory=list)
    reported_rates: dict[str, float] = field(default_factory=dict)
    missing: tuple[str, ...] = ()

    @property
    def measured(self) -> list[Rung]:
        return [r for r in self.rungs if r.measured is not None and r.measured["overall"] is not None]

    @property
    def comparable(self) -> list[Rung]:
        """Measured rows of one judge, judge version and suite: those of the most rows. Others stand in the table alone."""
        groups: dict[tuple[str, str, str], list[Rung]] = {}
        for rung in self.measured:
            m = rung.measured or {}
            groups.setdefault((m["judge"], m["judge_version"], m["suite_hash"]), []).append(rung)
        return max(groups.values(), key=len) if groups else []


def gather_ladder(d: Declarations, chain: Chain) -> LadderData:
    """Read every evaluation of the present declarations. Raises DamagedArtifact where one was changed."""
    found = ladder(d, chain)
    rungs = [_rung(d, chain, row, found["rows"]) for row in found["rows"]]
    documents = [document for files in d.characters.values() for document in files.reported]
    told = [c for document in documents for c in document.configurations]
    confidences = [d.evaluations[run.evaluation].confidence for run in d.runs.values()]
    data = LadderData(
        profile=d.profile.profile,
        profile_description=" ".join(d.profile.description.split()),
        judges=tuple(dict.fromkeys(r.measured["judge"] for r in rungs if r.measured)) or (d.profile.judge,),
        reported_judges=tuple(found["reported_judges"]),
        reported_sources=tuple(dict.fromkeys(document.source for document in documents if document.scores)),
        stand_ins=tuple(dict.fromkeys(r["base_title"] for r in found["rows"] if r["stand_in"])),
        confidence=min(confidences, default=0.95),
        rungs=rungs,
        build_seconds=found["build_seconds"],
        reported_costs=costs(d, chain)["reported"]["rows"],
        reported_rates={str(c["run"]): float(c["learning_rate"] or 0) for c in told if c.get("learning_rate")},
        missing=tuple(dict.fromkeys(r["run"] for r in found["rows"] if r["state"] == "not built")),
    )
    return _compared(chain, data)


def _scores(chain: Chain, measured: dict[str, Any], mode: str) -> pl.DataFrame:
    path = chain.store.open(measured["evaluation_hash"]).file("scores.parquet")
    columns = ["mode", "prompt_id", "category", "answer", "overall"]
    return pl.read_parquet(path, columns=columns).filter(pl.col("mode") == mode)


def _rung(d: Declarations, chain: Chain, row: dict[str, Any], rows: list[dict[str, Any]]) -> Rung:
    measured = row["measured"]
    breaks = None
    same: list[str] = []
    if measured is not None:
        character = d.characters[d.runs[row["run"]].character].character
        said = _scores(chain, measured, row["mode"])["answer"].to_list()
        broken = sum(bool(character_breaks(character, answer)) for answer in said)
        breaks = wilson(broken, len(said)).as_dict()
        same = [
            other["run"]
            for other in rows
            if other["measured"]
            and other["run"] != row["run"]
            and other["measured"]["adapter_hash"] == measured["adapter_hash"]
        ]
    return Rung(row["run"], row["mode"], measured, row["reported"], row, breaks, None, tuple(dict.fromkeys(same)))


def _compared(chain: Chain, data: LadderData) -> LadderData:
    """The same with every comparable row set against the highest one, question by question."""
    from dataclasses import replace

    ranked = sorted(data.comparable, key=lambda r: -(r.measured or {})["overall"])[: MOST_COMPARED + 1]
    if len(ranked) < 2:
        return data
    rows = {id(r): score_rows(_scores(chain, r.measured or {}, r.mode)) for r in ranked}
    top, *others = ranked
    found = family(
        {str(i): compare(rows[id(r)], rows[id(top)], confidence=data.confidence) for i, r in enumerate(others)}
    )
    against = {id(r): found[str(i)] for i, r in enumerate(others)}
    return replace(data, rungs=[replace(r, against_highest=against.get(id(r))) for r in data.rungs])
