"""The gate between exported files and answers: a wrong chat template stops them, in one run and launched alone."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from foundry_pipeline.chain.engine import Chain
from foundry_pipeline.chain.gate import read_verdict, write_verdict
from foundry_pipeline.chain.graph import load_chain
from foundry_pipeline.chain.parity_stages import parity_verdict
from foundry_pipeline.declarations import Declarations
from foundry_pipeline.errors import GateRefused
from foundry_pipeline.launch import ScriptSession, write_json
from foundry_pipeline.settings import Settings
from tests.prepared import prepare, publish_folder

GGUF, RESPONSES = "keeper_first_gguf", "keeper_first_responses"


class Reached(Exception):
    """The gate has let the work begin."""


def reached(module: str, spec: Mapping[str, Any], work: Path) -> None:
    raise Reached(module)


def here(module: str, spec: Mapping[str, Any], work: Path) -> None:
    """The script's own function in this process, which has its libraries loaded already."""
    from foundry_pipeline.export.parity import run

    assert module == "foundry_pipeline.export.parity"
    write_json(work / "result.json", run(dict(spec), ScriptSession(None)))


class Exported:
    """A project whose run is exported from tiny models."""

    def __init__(self, root: Path, tiny: Path, adapter: Path, exports: Path) -> None:
        self.settings = Settings(prepare(root, dense=tiny).root, root / ".foundry", "tiny")
        profile = root / "assets/profiles/tiny.yaml"
        # Random weights agree less well than trained ones when they are rounded.
        bounds = "parity:\n  tokens: 48\n  bounds: {q4_k_m: {max_kl: 1.0, min_top1: 0.2}}"
        text, there = re.subn(r"^parity: .*$", bounds, profile.read_text(), flags=re.MULTILINE)
        assert there == 1
        profile.write_text(text)
        self.profile = profile
        self.exports = exports
        publish_folder(self.chain()[1], "keeper_first_adapter", adapter)

    def chain(self) -> tuple[Declarations, Chain]:
        return load_chain(self.settings)

    def put(self, *, wrong: bool = False) -> tuple[Declarations, Chain]:
        """Merged folder and GGUF files that agree with each other; wrong ones have another template and end token."""
        d, chain = self.chain()
        publish_folder(chain, "keeper_first_merged", self.exports / ("wrong" if wrong else "merged"))
        publish_folder(chain, GGUF, self.exports / ("gguf-wrong" if wrong else "gguf"))
        return d, chain

    def answer(self) -> None:
        """Ask for the answers alone, as a user would who skips everything before them."""
        self.chain()[1].materialize(RESPONSES, run_script=reached, log=print)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, tiny: Path, tiny_adapter: Path, tiny_exports: Path) -> Exported:
    return Exported(tmp_path_factory.mktemp("exported"), tiny, tiny_adapter, tiny_exports)


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral(tempdir=str(tmp_path)) as made:
        yield made


def materialize(exported: Exported, instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    """GGUF files, their checks, and the answers, in one run."""
    from foundry_pipeline.defs.assets import stage_asset
    from foundry_pipeline.defs.parity_checks import parity_checks
    from foundry_pipeline.defs.partitions import placed_at
    from foundry_pipeline.docs.descriptions import load_descriptions

    d, chain = exported.chain()
    blocks = load_descriptions(exported.settings.root)
    assets = [stage_asset(d, chain, placed_at(chain, name), blocks) for name in (GGUF, RESPONSES)]
    return dg.materialize(
        [*assets, parity_checks(d, chain, placed_at(chain, GGUF))],
        resources={"pipes": dg.PipesSubprocessClient()},
        instance=instance,
        raise_on_error=False,
    )


def test_a_wrong_template_blocks_the_answers_in_one_run_and_alone(
    exported: Exported, instance: dg.DagsterInstance
) -> None:
    exported.put(wrong=True)
    with pytest.raises(GateRefused, match="has not been checked for export parity"):
        exported.answer()
    done = materialize(exported, instance)
    assert not done.success
    found = {e.check_name: e for e in done.get_asset_check_evaluations()}
    failed = {name for name, e in found.items() if not e.passed and e.severity == dg.AssetCheckSeverity.ERROR}
    assert {"same_prompt_tokens", "same_end_tokens", "forced_end_stops"} <= failed
    assert "merged_equals_adapter" not in failed
    told = {name: str(e.metadata["observed"].value) for name, e in found.items()}
    for mode in ("merged", "F16", "Q4_K_M"):
        assert f"{mode} reads 4 of 4 otherwise" in told["same_prompt_tokens"]
    assert "its chat template or its tokenizer" in told["same_prompt_tokens"]
    assert "adapter on base 2, merged 0, F16 0" in told["same_end_tokens"]
    assert "merged goes on after [2, 4]" in told["same_end_tokens"]
    # A folder that no longer knows the end of a turn runs on past it.
    assert "merged, 2: went on" in told["forced_end_stops"]
    assert found["agreement_q8_0"].metadata["mean_kl"].value > 0
    assert "tensors" in found["delta_above_quantization_step"].metadata["delta"].value
    started = {e.step_key for e in done.all_events if e.event_type_value == "STEP_START"}
    assert GGUF in started
    assert RESPONSES not in started
    with pytest.raises(GateRefused, match=r"keeper_first_gguf failed same_prompt_tokens \(merged reads") as refused:
        exported.answer()
    assert refused.value.mend.startswith(f"dagster asset materialize --select {GGUF}")


def test_right_files_pass_and_a_verdict_holds_for_them_alone(exported: Exported) -> None:
    d, chain = exported.put()
    with pytest.raises(GateRefused, match="has not been checked"):
        exported.answer()
    verdict = parity_verdict(d, chain, "keeper_first", run_script=here, log=print)
    assert verdict["passed"], verdict["results"]
    with pytest.raises(Reached, match="models.generate"):
        exported.answer()
    # Known, it is read and not reached again.
    assert parity_verdict(d, chain, "keeper_first", run_script=reached, log=print) == verdict
    gguf = chain.require(GGUF).artifact
    write_verdict(gguf, verdict | {"gguf_hash": "0" * 64})
    with pytest.raises(GateRefused, match="is of other files"):
        exported.answer()
    write_verdict(gguf, verdict)
    # The other files are wrong still, and their verdict lies beside them.
    exported.put(wrong=True)
    with pytest.raises(GateRefused):
        exported.answer()


def test_a_changed_bound_is_judged_anew_and_measured_no_second_time(exported: Exported) -> None:
    d, chain = exported.put()
    parity_verdict(d, chain, "keeper_first", run_script=here, log=print)
    text = exported.profile.read_text()
    strict = re.sub(
        r"bounds: .*", "bounds: {q5_k_m: {max_kl: 0.000001, min_top1: 0.2}, q4_k_m: {max_kl: 1.0, min_top1: 0.2}}", text
    )
    exported.profile.write_text(strict)
    try:
        with pytest.raises(GateRefused, match="other models, prompts or bounds"):
            exported.answer()
        d, chain = exported.chain()
        verdict = parity_verdict(d, chain, "keeper_first", run_script=reached, log=print)
        assert [r["name"] for r in verdict["results"] if not r["passed"] and r["severity"] == "error"] == [
            "agreement_q5_k_m"
        ]
        with pytest.raises(GateRefused, match=r"failed agreement_q5_k_m \(KL "):
            exported.answer()
    finally:
        exported.profile.write_text(text)
    d, chain = exported.chain()
    assert parity_verdict(d, chain, "keeper_first", run_script=reached, log=print)["passed"]
    assert read_verdict(chain.require(GGUF).artifact)["passed"]
