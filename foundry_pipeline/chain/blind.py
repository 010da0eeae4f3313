"""`foundry ab`: recorded answers of two models against each other, blind, in both orders, by one judge or several.

    meet(d, chain, find_side(d, chain, "madison_r2"), find_side(d, chain, "madison_r2:base"), judges=["rubric-local"], …)
    → {"a": {…}, "b": {…}, "duels": 36, "judges": {"rubric-local": "9f…"}, "rates": {"rubric-local": {"all": {…}, …}},
       "agreement": [], "sheet": "…/.foundry/ab/<id>/sheet.jsonl", …}

No answer is generated: both sides were judged, so their answers lie in the store. `rubric-local` needs no key: it prefers
the answer that it scores higher, by marks that are found where the evaluation recorded them. Judges that are models are
those of the profile's `judges`, asked through response cache and budget; a person votes on the sheet. The key of the
sheet lies in another folder and names neither side on it.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import polars as pl

from foundry_pipeline.chain.comparison import Side, require_comparable
from foundry_pipeline.chain.engine import Chain
from foundry_pipeline.chain.evaluation_stages import suite_hash
from foundry_pipeline.declarations import CharacterFiles, Declarations
from foundry_pipeline.declarations.judging import RUBRIC_LOCAL, AnyJudge, OpenAIJudge
from foundry_pipeline.declarations.sources import EvaluationPrompt
from foundry_pipeline.errors import FoundryError
from foundry_pipeline.evaluation.blind_sheet import Key, Voted, blind, read_votes
from foundry_pipeline.evaluation.judges import Judge, Judgment, unscored
from foundry_pipeline.evaluation.model_judge import judge_ref, judge_title
from foundry_pipeline.evaluation.pairwise import (
    CONSENSUS,
    ByOverall,
    Duel,
    PairwiseJudge,
    Verdict,
    agreement,
    consensus,
    judge_duels,
    win_rates,
)
from foundry_pipeline.evaluation.pairwise_model import AskedPreference, requests_of
from foundry_pipeline.evaluation.scoring import COMPONENTS
from foundry_pipeline.launch import write_json
from foundry_pipeline.lineage.hashing import digest
from foundry_pipeline.models.requests import Reply

Log = Callable[[str], None]


def meet(
    d: Declarations,
    chain: Chain,
    a: Side,
    b: Side,
    *,
    judges: Sequence[str],
    votes: Mapping[str, Path] | None = None,
    margin: float = 0.0,
    log: Log = lambda text: None,
) -> dict[str, Any]:
    """Every judge on every duel of `a` (ours) and `b`; plain data. Writes sheet, key and verdicts into the store's `ab/`.

    Raises FoundryError for sides that answered different suites, a suite that is no longer the declared one, a judge that
    is not declared, votes that are none; and what asking a remote judge raises.
    """
    files, evaluation = _declared(d, a, b)
    duels = duels_of(files, a.rows, b.rows, out_of_domain=evaluation.out_of_domain)
    if not duels:
        raise FoundryError(
            f"{a.name} and {b.name} have no answered question in common",
            where="the two evaluations",
            mend=f"dagster asset materialize --select '*{a.run}_eval'",
        )
    folder, sheet, key = _sheet(chain, a, b, duels)
    sat: list[PairwiseJudge] = []
    for name in dict.fromkeys(judges):
        if name == RUBRIC_LOCAL:
            sat.append(ByOverall(_rubric(d, chain, files, (a, b)), margin))
        else:
            sat.append(_model(d, chain, name, duels, log))
    sat += [Voted(name, read_votes(path, key), duels, key) for name, path in (votes or {}).items()]
    if len({judge.name for judge in sat}) < len(sat):
        raise FoundryError("two judges bear one name", where="--judge, --votes", mend="give each a name of its own")
    verdicts = judge_duels(sat, duels)
    rates = win_rates(verdicts, evaluation.confidence)
    if len(sat) > 1:
        rates |= win_rates(consensus(verdicts), evaluation.confidence)
    told = {
        "a": a.as_dict(),
        "b": b.as_dict(),
        "duels": len(duels),
        "same_text": sum(duel.ours.strip() == duel.theirs.strip() for duel in duels),
        "out_of_domain": list(evaluation.out_of_domain),
        "confidence": evaluation.confidence,
        "judges": {judge.name: judge.version for judge in sat},
        "rates": rates,
        "agreement": [{"judges": list(pair), **found} for pair, found in agreement(verdicts).items()],
        "sheet": str(folder / "sheet.jsonl"),
        "verdicts": str(folder / "verdicts.parquet"),
    }
    verdict_frame(verdicts).write_parquet(folder / "verdicts.parquet")
    write_json(folder / "result.json", told)
    return told | {"sheet_lines": len(sheet)}


def _declared(d: Declarations, a: Side, b: Side) -> tuple[CharacterFiles, Any]:
    """Suite and evaluation that both sides were put to, as they are declared now."""
    require_comparable(a, b, ("suite",))
    run = next((d.runs[side.run] for side in (a, b) if side.run in d.runs), None)
    files = d.characters[run.character] if run is not None else None
    if run is None or files is None or suite_hash(files) != a.suite_hash:
        raise FoundryError(
            f"{a.name} and {b.name} answered a suite that is not the declared one any more",
            where=f"evaluations {a.artifact_hash[:12]} and {b.artifact_hash[:12]}",
            mend=" && ".join(f"dagster asset materialize --select '*{r}_eval'" for r in dict.fromkeys((a.run, b.run))),
        )
    return files, d.evaluations[run.evaluation]


def duels_of(
    files: CharacterFiles, ours: pl.DataFrame, theirs: pl.DataFrame, *, out_of_domain: Sequence[str] = ()
) -> list[Duel]:
    """A duel for each answer that both sides gave to a question of the suite; repeats meet in the order of their hashes."""
    both = [_by_prompt(frame) for frame in (ours, theirs)]
    return [
        Duel(prompt, one, other, "out_of_domain" if prompt.category in out_of_domain else "in_domain")
        for prompt in files.suite.prompts
        for one, other in zip_longest(*(side.get(prompt.id, []) for side in both))
        if one is not None and other is not None
    ]


def _by_prompt(frame: pl.DataFrame) -> dict[str, list[str]]:
    out: dict[str, list[str]] = {}
    for row in frame.sort("prompt_id", "request_hash").iter_rows(named=True):
        out.setdefault(row["prompt_id"], []).append(row["answer"])
    return out


def _sheet(chain: Chain, a: Side, b: Side, duels: Sequence[Duel]) -> tuple[Path, list[dict[str, str]], Key]:
    """The folder of these two, its sheet and key: found, so that votes stay good, or made."""
    asked = [[x.prompt.id, x.ours, x.theirs] for x in duels]
    name = digest([[side.artifact_hash, side.mode] for side in (a, b)] + asked)[:16]
    root = chain.settings.store / "ab"
    folder, keys = root / name, root / "keys" / f"{name}.json"
    try:
        known = json.loads(keys.read_text(encoding="utf-8")) if keys.is_file() else None
        secret = str(known["secret"]) if known else secrets.token_hex(16)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FoundryError(
            "the key of this sheet cannot be read",
            where=str(keys),
            mend="put its backup in place, or move it aside: a new sheet is made, and old votes are void",
        ) from error
    sheet, key = blind(duels, secret)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        keys.parent.mkdir(parents=True, exist_ok=True)
        if known is None:
            write_json(keys, {"secret": secret, "ours": a.name, "theirs": b.name, "lines": key})
        lines = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in sheet)
        temporary = folder / ".sheet.jsonl"
        temporary.write_text(lines, encoding="utf-8")
        temporary.replace(folder / "sheet.jsonl")
    except OSError as error:
        raise FoundryError(
            f"the sheet cannot be written ({error.strerror})",
            where=str(folder),
            mend="free some space or make the folder writable, then the same command",
        ) from error
    return folder, sheet, key


def verdict_frame(verdicts: Sequence[Verdict]) -> pl.DataFrame:
    """One row a judge and duel."""
    rows = [
        {
            **{name: getattr(v, name) for name in ("judge", "version", "suite", "category", "prompt_id", "outcome")},
            "swayed": v.swayed,
            "ours_first": v.forward.choice,
            "ours_second": v.backward.choice,
            "reasons": [v.forward.reason, v.backward.reason],
        }
        for v in verdicts
    ]
    return pl.DataFrame(rows, schema_overrides={"ours_first": pl.String, "ours_second": pl.String})


class _Recorded:
    """Marks as an evaluation recorded them: a judge that reads nothing again."""

    def __init__(self, name: str, version: str, frames: Sequence[pl.DataFrame]) -> None:
        self.name, self.version = name, version
        self._marks = {
            (row["prompt_id"], row["answer"]): {name: row[name] for name in COMPONENTS}
            for frame in frames
            for row in frame.iter_rows(named=True)
        }

    def judge(self, prompt: EvaluationPrompt, answer: str) -> Judgment:
        marks = self._marks[prompt.id, answer]
        return unscored("recorded as such") if None in marks.values() else Judgment(**marks)


def _rubric(d: Declarations, chain: Chain, files: CharacterFiles, sides: Sequence[Side]) -> Judge:
    """The rubric's marks where both sides were judged by one version of it, else the rubric itself."""
    if all(side.judge == RUBRIC_LOCAL for side in sides) and len({side.judge_version for side in sides}) == 1:
        return _Recorded(RUBRIC_LOCAL, sides[0].judge_version, [side.rows for side in sides])
    from foundry_pipeline.corpus.minilm import load_encoder
    from foundry_pipeline.corpus.passages import own_passages
    from foundry_pipeline.evaluation.rubric import RubricLocal

    name = f"{files.character.character}_passages"
    passages = pl.read_parquet(chain.require(name).artifact.payload / "passages.parquet")
    return RubricLocal(files.character, own_passages(passages), load_encoder(d.profile.threads).embed)


def _model(d: Declarations, chain: Chain, name: str, duels: Sequence[Duel], log: Log) -> AskedPreference:
    """A declared model as a judge of pairs, everything asked at once through response cache and budget."""
    from foundry_pipeline.models.cache import ResponseCache
    from foundry_pipeline.models.money.spending import open_spending, spending_spec
    from foundry_pipeline.models.remote.answering import answer_all
    from foundry_pipeline.models.remote.service import service_name

    if name not in d.profile.judges:
        known = ", ".join([RUBRIC_LOCAL, *d.profile.judges])
        raise FoundryError(
            f"no judge `{name}` is declared in the profile {d.profile.profile}",
            where=f"assets/profiles/{d.profile.profile}.yaml, field `judges`",
            mend=f"name one of: {known}; or declare it there",
        )
    declared: AnyJudge = d.profile.judges[name]
    model = judge_ref(declared)
    temperature = declared.temperature if isinstance(declared, OpenAIJudge) else 1.0
    asked = requests_of(duels, max_tokens=declared.max_tokens, temperature=temperature)
    log(f"{model.title}: {len(asked)} pairs to be judged")
    replies = answer_all(
        model,
        list(asked.values()),
        cache=ResponseCache(chain.settings.responses_path),
        spending=open_spending(spending_spec(chain.settings, "blind_ab")),
        run="blind_ab",
        progress=lambda done, of, **metrics: log(f"{done} of {of}") if done == of or done % 50 == 0 else None,
        log=log,
    )
    heard: dict[str, Reply] = dict(zip(asked, replies, strict=True))
    how = declared.model_dump(mode="json", include={"kind", "model", "max_tokens", "revision", "temperature"})
    remote = {n: declared.remote.model_dump(mode="json")[n] for n in ("effort", "sampling")}
    identity = digest({**how, **remote, "service": service_name(model)})
    return AskedPreference(judge_title(declared), identity, heard.__getitem__)


__all__ = ["CONSENSUS", "duels_of", "meet", "verdict_frame"]
