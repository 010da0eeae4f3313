"""From what parity measured to a verdict: named checks, each with what was found and what was asked for.

    judge(json.loads((payload / "parity.json").read_text()), profile.parity)
    → [{"name": "same_prompt_tokens", "passed": True, "severity": "error", "observed": "36 of 36 …", …}, …]

A check of severity `error` blocks whatever answers questions with the exported files; `warn` is told and blocks nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from foundry_pipeline.declarations.parity import Parity

TITLES = {
    "base": "base",
    "adapter": "adapter on base",
    "merged": "merged",
    "f16": "F16",
    "q8_0": "Q8_0",
    "q5_k_m": "Q5_K_M",
    "q4_k_m": "Q4_K_M",
}
SMALLEST_FIRST = ("q4_k_m", "q5_k_m", "q8_0", "f16", "merged")
DELTA_CHECK = "delta_above_quantization_step"
MOST_STEPS = 1  # of bfloat16: the order in which a sum is taken may move its last bit
KEPT = 0.5  # by which share a file's part of the delta may differ from the merged weights'
_TRACE, _SURE = 0.2, 4  # part of the delta from which it can be sought; standard deviations of what is found
_DROWNED = 0.5  # share of tensors below their step from which a way of writing is warned of


def checks(declared: Parity) -> list[tuple[str, str, str]]:
    """(name, severity, description) of every check, in order."""
    out = [
        ("same_prompt_tokens", "error", "Every serving mode reads every question of the suite as the same token ids."),
        ("same_end_tokens", "error", "Every serving mode names the same end token and stops at the same ones."),
        ("forced_end_stops", "error", "An end token that is forced ends the answer, in every serving mode."),
        (
            "merged_equals_adapter",
            "error",
            f"Every merged weight is base + scale · B·A within {MOST_STEPS} step of bfloat16, and nothing else changed.",
        ),
        (
            "gguf_holds_merged",
            "error",
            "Every adapted tensor of every GGUF file is that of the merged model, and what training added is in it: as "
            f"much along its direction as in the merged weights, within {KEPT:.0%}.",
        ),
    ]
    for mode, bound in declared.bounds.items():
        out.append(
            (
                agreement_check(mode),
                "error",
                f"Next-token predictions of {TITLES[mode]} against adapter on base in {declared.reference}: mean KL at "
                f"most {bound.max_kl} nats per token, same likeliest token in at least {bound.min_top1:.0%}.",
            )
        )
    out.append(
        (
            DELTA_CHECK,
            "warn",
            "What the adapter changes of a weight is more than what quantization moves it by; else a better serving "
            "mode is named.",
        )
    )
    return out


def agreement_check(mode: str) -> str:
    return f"agreement_{mode}"


def judge(measured: Mapping[str, Any], declared: Parity) -> list[dict[str, Any]]:
    """One result for each of `checks(declared)`, in their order."""
    found = {
        "same_prompt_tokens": _prompts(measured["prompts"]),
        "same_end_tokens": _ends(measured["ends"]),
        "forced_end_stops": _forced(measured["ends"]),
        "merged_equals_adapter": _merge(measured["merge"]),
        "gguf_holds_merged": _held(measured["merge"], measured["deltas"]),
        DELTA_CHECK: _deltas(measured["deltas"]),
    }
    precision = measured.get("reference", {})
    for mode, bound in declared.bounds.items():
        found[agreement_check(mode)] = _agreement(measured["distance"].get(mode), bound.max_kl, bound.min_top1)
        if mode == precision.get("mode") and precision.get("precision") == precision.get("served_precision", ""):
            told = f"is the reference: both are in {precision['precision']}, so this compares a model with itself"
            found[agreement_check(mode)] = (found[agreement_check(mode)][0], told, "nothing")
    return [
        {"name": name, "severity": severity, **dict(zip(("passed", "observed", "bound"), found[name], strict=True))}
        for name, severity, _ in checks(declared)
    ]


def passed(results: Sequence[Mapping[str, Any]]) -> bool:
    """Whether no check of severity `error` failed."""
    return all(r["passed"] for r in results if r["severity"] == "error")


_Found = tuple[bool, str, str]


def _ordered(modes: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Modes in the order of TITLES: a JSON object has none."""
    return sorted(modes.items(), key=lambda item: list(TITLES).index(item[0]))


def _prompts(found: Mapping[str, Any]) -> _Found:
    asked, bound = found["asked"], "the ids of adapter on base in every mode"
    wrong = []
    for mode, told in _ordered(found["modes"]):
        if told["differing"]:
            first = told["first"]
            wrong.append(
                f"{TITLES[mode]} reads {told['differing']} of {asked} otherwise, {first['prompt']} from token "
                f"{first['at']} on ({first['read']} instead of {first['reference']}): its chat template or its tokenizer "
                "is another"
            )
    modes = len(found["modes"])
    return not wrong and asked > 0, "; ".join(wrong) or f"{asked} of {asked} prompts alike in {modes} modes", bound


def _ends(found: Mapping[str, Any]) -> _Found:
    # llama.cpp also stops at marks of other uses, such as filling in the middle; an answer never holds them.
    reference, markers, modes = set(found["reference"]), set(found["markers"]), found["modes"]
    declared = {told["declared"] for told in modes.values()}
    wrong = []
    if len(declared) > 1:
        named = ", ".join(f"{TITLES[mode]} {told['declared']}" for mode, told in _ordered(modes))
        wrong.append(f"the modes name other end tokens: {named}")
    for mode, told in _ordered(modes):
        if lacking := sorted(reference - set(told["ends"])):
            wrong.append(f"{TITLES[mode]} goes on after {lacking}")
        if further := sorted(set(told["ends"]) - reference - markers):
            wrong.append(f"{TITLES[mode]} stops at {further} as well")
    told = f"{sorted(reference)} in {len(modes)} modes"
    if markers:
        told += f"; GGUF files also stop at {sorted(markers)}, marks that no answer holds"
    return not wrong, "; ".join(wrong) or told, "the same in every mode"


def _forced(found: Mapping[str, Any]) -> _Found:
    wrong = []
    for mode, told in _ordered(found["modes"]):
        wrong += [f"{TITLES[mode]}, {end}: {what}" for end, what in told.get("forced", {}).items() if what != "stop"]
    tried = sum(len(told.get("forced", {})) for told in found["modes"].values())
    return not wrong and tried > 0, "; ".join(wrong) or f"{tried} of {tried} stopped at once", "every one stops"


def _merge(found: Mapping[str, Any]) -> _Found:
    steps, elsewhere = found["worst_steps"], found["changed_elsewhere"]
    told = f"at most {steps} steps, {found['differing']:.2%} of weights not equal, {found['tensors']} tensors"
    if elsewhere:
        told += f"; changed without an adapter: {', '.join(elsewhere)}"
    fits = steps <= MOST_STEPS and not elsewhere and found["tensors"] > 0
    return fits, told, f"at most {MOST_STEPS} step of bfloat16, nothing changed elsewhere"


def _held(found: Mapping[str, Any], deltas: Mapping[str, Mapping[str, Any]]) -> _Found:
    bound = f"every adapted tensor, and as much of the delta as in the merged weights, within {KEPT:.0%}"
    wrong = [f"not the merged weights: {', '.join(found['misplaced'])}"] if found["misplaced"] else []
    # Noise of quantization averages out over a file's weights; what is left is whether the delta is there at all. The
    # rows of a file of the untuned base look like the merged ones, and hold none of it.
    # A training that changed next to nothing is below what rounding to bfloat16 leaves, and cannot be told from none.
    merged = deltas.get("merged", {}).get("kept") or 0.0
    for mode, told in _ordered(deltas) if merged >= _TRACE else ():
        kept, sure = told["kept"], told.get("kept_error") or 0.0
        if kept is not None and abs(kept - merged) > KEPT * merged + _SURE * sure:
            wrong.append(
                f"{TITLES[mode]} holds {round(100 * kept)}% of what training added, merged {round(100 * merged)}%"
            )
    return not wrong, "; ".join(wrong) or f"{found['tensors']} tensors in every file", bound


def _agreement(found: Mapping[str, Any] | None, max_kl: float, min_top1: float) -> _Found:
    bound = f"KL at most {max_kl}, top-1 at least {min_top1:.0%}"
    if found is None:
        return False, "not measured", bound
    if found["mean_kl"] is None:
        return False, "predictions are no finite numbers", bound
    told = f"KL {found['mean_kl']:.4f} nats per token (99 % below {found['p99_kl']:.3f}), top-1 {found['top1']:.1%}"
    return found["mean_kl"] <= max_kl and found["top1"] >= min_top1, told, bound


def drowned(found: Mapping[str, Any]) -> bool:
    """Whether, in one way of writing, the delta is below the step in most tensors, or on the whole."""
    return bool(found["below"] > _DROWNED * found["tensors"] or (found["ratio"] is not None and found["ratio"] < 1))


def better_mode(deltas: Mapping[str, Mapping[str, Any]]) -> str:
    """The smallest way of writing that does not drown the delta; the adapter itself where all of them do."""
    return next((m for m in SMALLEST_FIRST if m in deltas and not drowned(deltas[m])), "adapter")


def _deltas(found: Mapping[str, Mapping[str, Any]]) -> _Found:
    bound = "delta above the step in most tensors"
    small = [mode for mode in reversed(SMALLEST_FIRST) if mode in found and drowned(found[mode])]
    if not small:
        return True, "; ".join(_delta(mode, told) for mode, told in _ordered(found)), bound
    told = "; ".join(_delta(mode, found[mode]) for mode in small)
    advice = f"nearest to what was trained, and smallest: {TITLES[better_mode(found)]}"
    return False, f"{told}. A single weight's change drowns there; {advice}", bound


def _delta(mode: str, found: Mapping[str, Any]) -> str:
    ratio = "no step at all" if found["ratio"] is None else f"{found['ratio']:.2f} of the step"
    kept = "" if found["kept"] is None else f", {found['kept']:.0%} of it kept along its direction"
    return f"{TITLES[mode]}: delta {ratio}, below it in {found['below']} of {found['tensors']} tensors{kept}"
