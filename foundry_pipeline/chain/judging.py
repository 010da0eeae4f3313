"""What the evaluation stage needs where its judge is a model: who it is, how it is asked, and what it will cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from foundry_pipeline.chain.frames import read_frame
from foundry_pipeline.chain.stage import Demand
from foundry_pipeline.declarations import CharacterFiles
from foundry_pipeline.declarations.assets import Profile
from foundry_pipeline.declarations.judging import AnyJudge
from foundry_pipeline.evaluation.controls import planted
from foundry_pipeline.evaluation.judge_prompt import answer_block, rubric_block
from foundry_pipeline.evaluation.model_judge import ModelJudge, judge_ref
from foundry_pipeline.evaluation.style_probe import DRESSES, dressed
from foundry_pipeline.lineage.hashing import digest
from foundry_pipeline.lineage.store import Artifact
from foundry_pipeline.models.remote.service import fingerprint
from foundry_pipeline.models.requests import ChatRequest, ModelRef, Reply
from foundry_pipeline.settings import Settings

JUDGE_CODE = tuple(
    f"foundry_pipeline.evaluation.{name}" for name in ("model_judge", "judge_prompt", "replies", "lenient_json")
)
_KINDS_OF_CONTROL = 7
_BYTES_OF_A_TOKEN = 6  # no answer of plain prose has more


def declared_judge(profile: Profile) -> AnyJudge | None:
    """The model that judges in a profile; None where the rubric does."""
    return profile.judges.get(profile.judge)


def asked_how(judge: AnyJudge, files: CharacterFiles) -> dict[str, Any]:
    """What the declarations say of a judge, without what does not bear on its replies."""
    declared = judge.model_dump(mode="json")
    declared["remote"] = {name: declared["remote"][name] for name in ("base_url", "service", "effort", "sampling")}
    return {"judging": declared, "constitution": digest(files.constitution)}


def outside(judge: AnyJudge) -> dict[str, str]:
    """The server in force, where it is not the provider's own."""
    return fingerprint(judge_ref(judge))


def judging_spec(
    settings: Settings, asset: str, judge: AnyJudge | None, files: CharacterFiles, anew: int
) -> dict[str, Any] | None:
    """The part of an evaluation's spec that a judge needs which is a model. What is paid is booked on `asset`. No key is in it."""
    from foundry_pipeline.models.money.spending import spending_spec

    if judge is None:
        return None
    return {
        "declared": judge.model_dump(mode="json"),
        "constitution": files.constitution,
        "cache": str(settings.responses_path),
        "money": spending_spec(settings, asset),
        "anew": anew,
    }


def judge_asks(
    inputs: Mapping[str, Artifact], *, responses: str, passages: str, files: CharacterFiles, judge: AnyJudge, anew: int
) -> tuple[ModelRef, list[ChatRequest]]:
    """Model and requests of the first round, given the recorded answers; who is asked again shows only then."""
    prompts = {prompt.id: prompt for prompt in files.suite.prompts}
    answered = read_frame(inputs[responses], "responses")
    items = [(prompts[row["prompt_id"]], row["answer"]) for row in answered.iter_rows(named=True)]
    items += planted(files.controls, read_frame(inputs[passages], "passages"))
    items += dressed(files.style_probes, prompts)
    return judge_ref(judge), ModelJudge(judge, files.character, files.constitution, _nobody, anew=anew).requests(items)


def _nobody(requests: Sequence[ChatRequest]) -> list[Reply]:
    raise AssertionError("an estimate asks nobody")


def judge_demand(files: CharacterFiles, profile: Profile, judge: AnyJudge, modes: int) -> Demand:
    """How much will be asked, before there are answers: every question in every mode, and every control."""
    prompts = files.suite.prompts
    shown = len(prompts) * modes + _KINDS_OF_CONTROL * len(files.controls.controls)
    asked = (shown + len(DRESSES) * len(files.style_probes)) * judge.repeats
    longest = max((len(answer_block(prompt, "").encode()) for prompt in prompts), default=0)
    system = len(rubric_block(files.character, files.constitution).encode())
    size = system + longest + _BYTES_OF_A_TOKEN * profile.answer_max_tokens
    return Demand(judge_ref(judge), asked, size, judge.max_tokens)
