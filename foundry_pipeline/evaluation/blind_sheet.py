"""Duels on paper: a sheet without a name on it for a person to vote on, and the key that says whose answer is whose.

    sheet, key = blind(duels, secret)
    sheet[0]    → {"id": "3fa9…", "question": "…", "first": "…", "second": "…"}     both orders, in an order of chance
    key         → {"3fa9…": {"duel": 7, "ours_first": true}, …}                    kept in another file
    Voted("anna", read_votes(path, key), duels, key)                               a judge like any other

A vote is a line {"id": "3fa9…", "choice": "first" | "second" | "tie"}. What was not voted on is unscored, never a tie.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from foundry_pipeline.declarations.sources import EvaluationPrompt
from foundry_pipeline.errors import FoundryError
from foundry_pipeline.evaluation.pairwise import Duel, Preference
from foundry_pipeline.evaluation.pairwise_model import CHOICES
from foundry_pipeline.lineage.hashing import digest

Key = dict[str, dict[str, Any]]


def blind(duels: Sequence[Duel], secret: str) -> tuple[list[dict[str, str]], Key]:
    """The sheet and its key. Ids and their order follow from `secret` alone, so that a sheet gives nothing away; equal
    duels and secrets give equal sheets. Duels of two equal texts are left out: nobody has to be asked about them."""
    sheet, key = [], {}
    for number, duel in enumerate(duels):
        if duel.ours.strip() == duel.theirs.strip():
            continue
        for ours_first in (True, False):
            name = digest([secret, number, ours_first])[:16]
            first, second = (duel.ours, duel.theirs) if ours_first else (duel.theirs, duel.ours)
            sheet.append({"id": name, "question": duel.prompt.text, "first": first, "second": second})
            key[name] = {"duel": number, "ours_first": ours_first}
    return sorted(sheet, key=lambda line: line["id"]), dict(sorted(key.items()))


def read_votes(path: Path, key: Key) -> dict[str, Preference]:
    """Id → preference. Raises FoundryError, naming the line, for one that is no vote on this sheet or votes twice."""
    mend = 'give lines {"id": "<id of the sheet>", "choice": "first" | "second" | "tie"}'
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise FoundryError(f"the votes cannot be read ({error})", where=str(path), mend=mend) from error
    votes: dict[str, Preference] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            said = json.loads(line)
        except (ValueError, RecursionError):
            said = None
        if not isinstance(said, dict) or not {"id", "choice"} <= said.keys() <= {"id", "choice", "reason"}:
            raise FoundryError("this is no vote", where=where, mend=mend)
        name, choice, reason = said["id"], said["choice"], said.get("reason", "")
        if not isinstance(name, str) or name not in key:
            raise FoundryError("no duel of this sheet has that id", where=where, mend="vote on the sheet as it is now")
        if not isinstance(choice, str) or choice not in CHOICES or not isinstance(reason, str):
            raise FoundryError(f"a choice is one of {', '.join(CHOICES)}", where=where, mend=mend)
        if name in votes:
            raise FoundryError("this duel was voted on before", where=where, mend="keep one vote of each id")
        votes[name] = Preference(choice, reason)  # type: ignore[arg-type]
    return votes


class Voted:
    """A person's votes as a judge of pairs."""

    def __init__(self, name: str, votes: Mapping[str, Preference], duels: Sequence[Duel], key: Key) -> None:
        self._name, self._votes = name, dict(votes)
        self._told: dict[tuple[str, str, str], Preference] = {}
        for line, place in key.items():
            duel = duels[place["duel"]]
            shown = (duel.ours, duel.theirs) if place["ours_first"] else (duel.theirs, duel.ours)
            if line in votes:
                self._told[(duel.prompt.id, *shown)] = votes[line]

    @property
    def name(self) -> str:
        return self._name

    @property
    def version(self) -> str:
        """16 hex characters over the votes."""
        return digest(sorted((line, vote.choice) for line, vote in self._votes.items()))[:16]

    def prefer(self, prompt: EvaluationPrompt, first: str, second: str) -> Preference:
        return self._told.get((prompt.id, first, second), Preference(None, "not voted on"))
