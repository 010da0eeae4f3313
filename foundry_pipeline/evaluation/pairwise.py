"""Blind A/B: two answers to one prompt shown to a judge in both orders, without a name on either.

    duels = [Duel(prompt, ours, theirs, suite="in_domain")]
    verdicts = judge_duels([ByOverall(rubric)], duels)      # one Verdict a judge and duel
    win_rates(verdicts)["rubric-local"]["all"]              → {"wins": 30, "ties": 2, …, "rate": 0.86, "verdict": "better"}

A judge answers "first", "second" or "tie" about what it was shown; who stood first is known to this module alone and is
undone in one place (`owner`). An answer wins when it is preferred in both orders. Preferred in one order only, it was the
place that won and not the answer: a tie (Zheng et al., arXiv 2306.05685). A reply that cannot be read in either order
leaves the duel unscored; it is counted and takes part in no rate.

A verdict takes Wilson's interval to one side of an even rate and a permutation test over prompts besides, as for scores;
categories, and suites, are asked at once and corrected for that (Holm).

Prompts are the units: several answers to one prompt are averaged, so that Wilson's interval counts prompts. A tie counts
for half a win. Judges are never mixed into one rate; `agreement` says how far they agree, `consensus` what most of them say.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, runtime_checkable

from foundry_pipeline.declarations.sources import EvaluationPrompt
from foundry_pipeline.evaluation.judges import Judge
from foundry_pipeline.statistics.intervals import Interval
from foundry_pipeline.statistics.proportions import wilson
from foundry_pipeline.statistics.significance import holm, paired_permutation
from foundry_pipeline.statistics.verdict import verdict_of

Choice = Literal["first", "second", "tie"]
Outcome = Literal["win", "tie", "loss", "unscored"]
VALUE: dict[Outcome, float] = {"win": 1.0, "tie": 0.5, "loss": 0.0}
CONSENSUS = "most judges"


@dataclass(frozen=True)
class Preference:
    """What a judge said of two answers in the order shown; `choice` is None where its reply could not be read."""

    choice: Choice | None
    reason: str = ""

    def __post_init__(self) -> None:
        if self.choice not in ("first", "second", "tie", None):
            raise ValueError(f"{self.choice!r} is no choice")


@runtime_checkable
class PairwiseJudge(Protocol):
    """Anything that prefers one of two texts. It is told neither who wrote them nor that it will see them again."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    def prefer(self, prompt: EvaluationPrompt, first: str, second: str) -> Preference: ...


@dataclass(frozen=True)
class Duel:
    """One prompt with an answer of either model; `suite` tells prompts of the character's domain from others."""

    prompt: EvaluationPrompt
    ours: str
    theirs: str
    suite: str = "in_domain"


@dataclass(frozen=True)
class Verdict:
    """What one judge made of one duel, from our side. `forward` is of ours shown first, `backward` of ours second."""

    judge: str
    version: str
    prompt_id: str
    category: str
    suite: str
    outcome: Outcome
    forward: Preference
    backward: Preference

    @property
    def swayed(self) -> bool:
        """Whether the place decided: each order prefers the same place."""
        return self.forward.choice == self.backward.choice and self.forward.choice in ("first", "second")


def owner(choice: Choice | None, *, ours_first: bool) -> Literal["ours", "theirs", "tie"] | None:
    """Whose answer a choice means, by who stood first when it was made."""
    if choice is None or choice == "tie":
        return choice
    return "ours" if (choice == "first") == ours_first else "theirs"


def settle(forward: Preference, backward: Preference) -> Outcome:
    """The outcome for ours, of its duel shown with ours first (`forward`) and with ours second (`backward`)."""
    one, other = owner(forward.choice, ours_first=True), owner(backward.choice, ours_first=False)
    if one is None or other is None:
        return "unscored"
    if one != other or one == "tie":
        return "tie"
    return "win" if one == "ours" else "loss"


def judge_duel(judge: PairwiseJudge, duel: Duel) -> Verdict:
    """Show a duel in both orders. Two equal texts are a tie that nobody has to be asked about."""
    if duel.ours.strip() == duel.theirs.strip():
        forward = backward = Preference("tie", "the same text")
    else:
        forward = judge.prefer(duel.prompt, duel.ours, duel.theirs)
        backward = judge.prefer(duel.prompt, duel.theirs, duel.ours)
    prompt = duel.prompt
    outcome = settle(forward, backward)
    return Verdict(judge.name, judge.version, prompt.id, prompt.category, duel.suite, outcome, forward, backward)


def judge_duels(judges: Sequence[PairwiseJudge], duels: Iterable[Duel]) -> list[Verdict]:
    """Every judge on every duel, in order. Raises ValueError for no judge, or two of one name."""
    names = [judge.name for judge in judges]
    if not names or len(set(names)) != len(names):
        raise ValueError(f"judges need names of their own; got {names}")
    listed = list(duels)
    return [judge_duel(judge, duel) for judge in judges for duel in listed]


def win_rates(verdicts: Iterable[Verdict], confidence: float = 0.95) -> dict[str, dict[str, dict[str, Any]]]:
    """judge → group → figures. Groups are "all", "suite:…" and "category:…".

    Figures: wins, ties, losses, unscored and `swayed` (ties by place) in duels; n in prompts; rate with low and high.
    """
    groups: dict[str, dict[str, list[Verdict]]] = defaultdict(lambda: defaultdict(list))
    for verdict in verdicts:
        for group in ("all", f"suite:{verdict.suite}", f"category:{verdict.category}"):
            groups[verdict.judge][group].append(verdict)
    out = {}
    for judge, found in sorted(groups.items()):
        rates = {group: _rate(found[group], confidence) for group in sorted(found)}
        for kind in ("all", "suite:", "category:"):
            asked = {group: rate for group, rate in rates.items() if group.startswith(kind)}
            for group, p in holm({group: rate["p"] for group, rate in asked.items()}).items():
                rates[group] |= {"p_corrected": p, "verdict": verdict_of(_from_even(rates[group]), p)}
        out[judge] = rates
    return out


def _from_even(rate: dict[str, Any]) -> Interval:
    """How far a rate lies from an even one."""
    mean, low, high = (None if rate[name] is None else rate[name] - 0.5 for name in ("rate", "low", "high"))
    return Interval(mean, low, high, int(rate["n"]))


def _rate(verdicts: list[Verdict], confidence: float) -> dict[str, Any]:
    counts = Counter(v.outcome for v in verdicts)
    by_prompt: dict[tuple[str, str], list[float]] = defaultdict(list)
    for v in verdicts:
        if v.outcome != "unscored":
            by_prompt[v.suite, v.prompt_id].append(VALUE[v.outcome])
    means = [sum(values) / len(values) for values in by_prompt.values()]
    found = wilson(min(sum(means), float(len(means))), len(means), confidence)
    return {
        "wins": counts["win"],
        "ties": counts["tie"],
        "losses": counts["loss"],
        "unscored": counts["unscored"],
        "swayed": sum(v.swayed for v in verdicts),
        "n": found.n,
        "rate": found.rate,
        "low": found.low,
        "high": found.high,
        "p": paired_permutation([round(mean - 0.5, 12) for mean in means]),
    }


def agreement(verdicts: Iterable[Verdict]) -> dict[tuple[str, str], dict[str, float | int | None]]:
    """Each two judges → share of duels (scored by both) with the same outcome, their number, and Cohen's kappa.

    Kappa takes win, tie and loss as ordered (quadratic weights); None where a judge gave one outcome throughout.
    """
    by_judge: dict[str, dict[int, Verdict]] = defaultdict(dict)
    for verdict in verdicts:
        by_judge[verdict.judge][len(by_judge[verdict.judge])] = verdict
    found = {}
    names = sorted(by_judge)
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            if len(by_judge[a]) != len(by_judge[b]):
                raise ValueError(f"{a} and {b} judged different duels")
            both = [(by_judge[a][k].outcome, by_judge[b][k].outcome) for k in by_judge[a]]
            both = [(x, y) for x, y in both if "unscored" not in (x, y)]
            same = sum(x == y for x, y in both) / len(both) if both else None
            found[a, b] = {"n": len(both), "same": same, "kappa": _kappa(both)}
    return found


def _kappa(both: Sequence[tuple[Outcome, Outcome]]) -> float | None:
    """1 − observed over expected squared distance (Cohen 1968), of outcomes as 0, ½ and 1."""
    pairs = [(VALUE[x], VALUE[y]) for x, y in both]
    expected = sum((x - y) ** 2 for x, _ in pairs for _, y in pairs)
    if len({x for x, _ in pairs}) < 2 or len({y for _, y in pairs}) < 2:
        return None
    return 1 - len(pairs) * sum((x - y) ** 2 for x, y in pairs) / expected


def consensus(verdicts: Iterable[Verdict]) -> list[Verdict]:
    """One verdict a duel under the name CONSENSUS: what more than half of the judges that could be read say, else a tie."""
    by_judge: dict[str, list[Verdict]] = defaultdict(list)
    for verdict in verdicts:
        by_judge[verdict.judge].append(verdict)
    if len({len(found) for found in by_judge.values()}) > 1:
        raise ValueError("the judges judged different duels")
    out = []
    for votes in zip(*by_judge.values(), strict=True):
        counts = Counter(v.outcome for v in votes if v.outcome != "unscored")
        total = sum(counts.values())
        most: Outcome = "unscored" if not total else "tie"
        for outcome in ("win", "loss"):
            if 2 * counts[outcome] > total:
                most = outcome
        out.append(
            replace(votes[0], judge=CONSENSUS, version="+".join(sorted({v.version for v in votes})), outcome=most)
        )
    return out


class ByOverall:
    """A judge of single answers as a judge of pairs: it prefers the higher overall, within `margin` neither.

    A judge that reads each answer by itself cannot be swayed by the order; the second reading is not paid for twice.
    """

    def __init__(self, judge: Judge, margin: float = 0.0) -> None:
        if not 0 <= margin <= 10:
            raise ValueError(f"a margin of {margin} points")
        self._judge, self._margin = judge, margin
        self._read: dict[tuple[str, str], float | None] = {}

    @property
    def name(self) -> str:
        return self._judge.name

    @property
    def version(self) -> str:
        return f"{self._judge.version}/overall>{self._margin:g}"

    def _overall(self, prompt: EvaluationPrompt, answer: str) -> float | None:
        key = (prompt.id, answer)
        if key not in self._read:
            self._read[key] = self._judge.judge(prompt, answer).overall
        return self._read[key]

    def prefer(self, prompt: EvaluationPrompt, first: str, second: str) -> Preference:
        one, other = self._overall(prompt, first), self._overall(prompt, second)
        if one is None or other is None:
            return Preference(None, "an answer is unscored")
        said = f"{one:.2f} and {other:.2f}"
        if abs(one - other) <= self._margin + 1e-9:
            return Preference("tie", said)
        return Preference("first" if one > other else "second", said)
