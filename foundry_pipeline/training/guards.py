"""Rules on the figures of a training: what is wrong after its last step.

    history = [{"step": 1, "loss": 4.3, "grad_norm": 1.2, "chosen_logp": -3.6},
               …,
               {"step": 10, "loss": 9.8, "grad_norm": 7.1, "chosen_logp": -9.1, "kl": 5.4453}]
    judge(history, Guards())
    → [Finding(rule="chosen_logp", step=10, value=-9.1, …), Finding(rule="kl", step=10, value=5.4453, …)]

Pure: the verdict depends on the figures alone, so that a training that was killed and resumed is judged as it would
have been. `kl` and the figures of the probes stand in the rows of the steps at which they were measured.

Why these: a collapse comes in one step and not by degrees (KL to the base from 0.015 to 5.4453 in the case that this
project was given), so that a rise between two measurements tells it apart from learning, which moves slowly.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from foundry_pipeline.declarations.guards import Action, Guards

GRAVITY: tuple[Action, ...] = ("warn", "roll_back", "stop")
"""Of several findings of one step, the last of these decides."""
Figures = Mapping[str, float]


@dataclass(frozen=True)
class Finding:
    """One guard that fired: what it saw (`value`), what it allows (`bound`), and both in words (`told`)."""

    rule: str
    action: Action
    step: int
    told: str
    value: float
    bound: float


def judge(history: Sequence[Figures], guards: Guards) -> list[Finding]:
    """Everything that is wrong after the last row of `history`, the gravest first; empty for none."""
    if not history:
        return []
    found = [*_not_finite(history, guards), *_chosen(history, guards), *_kl(history, guards), *_probes(history, guards)]
    return sorted(found, key=lambda finding: -GRAVITY.index(finding.action))


def _not_finite(history: Sequence[Figures], guards: Guards) -> list[Finding]:
    row = history[-1]
    out = []
    for name, words in (
        ("loss", "the loss"),
        ("grad_norm", "the gradient's norm"),
        ("kl", "the KL divergence from the base"),
    ):
        if not math.isfinite(row.get(name, 0.0)):
            told = f"{words} is {row[name]}"
            out.append(_finding("not_finite", guards.not_finite.action, row, told, row[name], math.inf))
    return out


def _chosen(history: Sequence[Figures], guards: Guards) -> list[Finding]:
    rule = guards.chosen_logp
    if rule is None or not math.isfinite(history[-1]["chosen_logp"]):
        return []
    values = [row["chosen_logp"] for row in history]
    # Before `window` steps have been taken the mean is over those there are.
    means = [_mean(values[max(0, end - rule.window) : end]) for end in range(1, len(values) + 1)]
    bound = max(means) - rule.fall
    if means[-1] >= bound:
        return []
    told = (
        f"the chosen answers' log-probability fell to {means[-1]:.3f} nats per token, {max(means) - means[-1]:.3f} "
        f"below the best it has been; {rule.fall:g} is allowed"
    )
    return [_finding("chosen_logp", rule.action, history[-1], told, means[-1], bound)]


def _kl(history: Sequence[Figures], guards: Guards) -> list[Finding]:
    rule, row = guards.kl, history[-1]
    if rule is None or not math.isfinite(row.get("kl", math.nan)):
        return []
    before = next((r for r in reversed(history[:-1]) if "kl" in r), {"kl": 0.0, "step": 0})
    jump = row["kl"] - before["kl"]
    way = f"the KL divergence from the base went from {before['kl']:.4f} at step {before['step']:g} to {row['kl']:.4f}"
    if jump > rule.max_jump:
        told = f"{way} nats per token; a rise of {rule.max_jump:g} is allowed"
        return [_finding("kl", rule.action, row, told, row["kl"], before["kl"] + rule.max_jump)]
    if row["kl"] > rule.max_nats:
        told = f"{way} nats per token; {rule.max_nats:g} is allowed"
        return [_finding("kl", rule.action, row, told, row["kl"], rule.max_nats)]
    return []


def _probes(history: Sequence[Figures], guards: Guards) -> list[Finding]:
    rule, row = guards.probes, history[-1]
    if rule is None or "distinct_2" not in row:
        return []
    out = []

    def wrong(name: str, told: str, bound: float) -> None:
        out.append(_finding("probes", rule.action, row, told, row[name], bound))

    if row["distinct_2"] < rule.min_distinct:
        wrong(
            "distinct_2",
            f"of the sampled answers' pairs of tokens {row['distinct_2']:.3f} are different; "
            f"{rule.min_distinct:g} is wanted at least",
            rule.min_distinct,
        )
    if row["repetition"] > rule.max_repetition:
        wrong(
            "repetition",
            f"the sampled answers repeat themselves: {row['repetition']:.3f} of their runs of four tokens had stood "
            f"before; {rule.max_repetition:g} is allowed",
            rule.max_repetition,
        )
    if row["length_share"] < rule.min_length:
        wrong(
            "length_share",
            f"the sampled answers are {row['length_share']:.3f} times as long as the chosen ones; {rule.min_length:g} is "
            "wanted at least",
            rule.min_length,
        )
    return out


def _finding(rule: str, action: Action, row: Figures, told: str, value: float, bound: float) -> Finding:
    return Finding(rule, action, int(row["step"]), told, value, bound)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def probe_figures(answers: Sequence[Sequence[int]], wanted: Sequence[int]) -> dict[str, float]:
    """What sampled answers (token ids) look like: distinct_2, repetition, length_share.

    `distinct_2`: different pairs of neighbouring tokens over all pairs, all answers together (Li et al. 2016, arXiv
    1510.03055), so that one answer to every prompt shows as well as a loop within one; 1 where there is no pair.
    `repetition`: mean over the answers of the share of runs of four tokens that stood in the same answer before.
    `length_share`: tokens of the answers over the tokens that they should have (`wanted`).
    """
    pairs = [pair for answer in answers for pair in zip(answer, answer[1:], strict=False)]
    looped = []
    for answer in answers:
        runs = [tuple(answer[at : at + 4]) for at in range(len(answer) - 3)]
        looped.append(1 - len(set(runs)) / len(runs) if runs else 0.0)
    return {
        "distinct_2": len(set(pairs)) / len(pairs) if pairs else 1.0,
        "repetition": _mean(looped),
        "length_share": sum(map(len, answers)) / sum(wanted),
    }
