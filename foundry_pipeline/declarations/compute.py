"""ON WHAT a training runs, and how it is spread: `compute:` of a profile. No run says anything of it.

compute: {weights: nf4}                                             # QLoRA on the one GPU
compute: {processes: 4, sharding: fsdp}                             # four GPUs, the frozen base shared out among them
compute: {processes: 8, nodes: 2, rendezvous: "trainer-0:29500"}    # two machines of eight

An optimizer step holds the pairs that its run declares, however many processes share them: their number changes the order
in which sums are taken and nothing else.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from foundry_pipeline.declarations.common import Declaration


class Compute(Declaration):
    """Device, form of the frozen weights, and how many processes share a training."""

    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="auto: a GPU where torch sees one, else the processor"
    )
    weights: Literal["full", "nf4"] = Field(
        default="full",
        description="how the frozen base is held: in `precision`, or in 4 bits (QLoRA: NF4 with double quantization, by "
        "bitsandbytes); what is trained and what it is merged into is in full precision either way",
    )
    gradient_checkpointing: bool | None = Field(
        default=None, description="compute activations again instead of keeping them; empty: on a GPU only"
    )
    attention: Literal["auto", "blocks", "sdpa"] = Field(
        default="auto",
        description="blocks: the project's own, for processors; sdpa: torch's kernels (flash attention on a GPU); auto: by device",
    )
    sharding: Literal["none", "fsdp"] = Field(
        default="none", description="fsdp: every process holds its part of the frozen layers, and gathers one at a time"
    )
    processes: int | None = Field(
        default=None,
        ge=1,
        le=64,
        description="on each node, one for each GPU there; empty: one on a GPU, on a processor one for each thread",
    )
    nodes: int = Field(default=1, ge=1, le=64, description="machines that train together")
    rendezvous: str = Field(
        default="",
        pattern=r"^([A-Za-z0-9.-]+|\[[0-9a-fA-F:]+\]):\d{1,5}$|^$",
        description="host:port of the first node, as the others reach it",
    )

    @model_validator(mode="after")
    def _fits(self) -> Compute:
        if self.nodes > 1 and (self.processes is None or not self.rendezvous):
            raise ValueError("several `nodes` need `processes` on each, and `rendezvous` (host:port of the first)")
        if self.nodes == 1 and self.rendezvous:
            raise ValueError("`rendezvous` is for several `nodes`")
        if self.rendezvous and not 0 < int(self.rendezvous.rpartition(":")[2]) < 65536:
            raise ValueError("`rendezvous` names a port that is none")
        if self.sharding == "fsdp" and (self.world_size or 1) < 2:
            raise ValueError("`sharding: fsdp` needs two `processes` at least to share the weights out to")
        if self.sharding == "fsdp" and self.weights == "nf4":
            raise ValueError(
                "weights in nf4 are not shared out: leave `sharding` out (a quarter of the weights is left)"
            )
        return self

    @property
    def world_size(self) -> int | None:
        """Processes on all nodes, where they are declared."""
        return None if self.processes is None else self.processes * self.nodes

    def deciding(self) -> dict[str, Any]:
        """What may change a bit of the result: all but where the nodes meet; empty for what no profile has to say."""
        return self.model_dump(mode="json", exclude_defaults=True, exclude={"rendezvous"})
