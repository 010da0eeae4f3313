"""The frozen base shared out among processes: each holds its part of every layer, and all of it only while it computes.

    mesh = mesh_of(team, "cuda:0")           # all together
    share_out(model, mesh, "cuda:0")         # once, after the adapter is on it

This is FSDP's full sharding (torch's `fully_shard`, "FSDP2") of the decoder's layers. The adapter is left out of it: it is a
hundredth of the model, every process keeps it whole with its optimizer, and gradients are added up as they are without
sharding. So a checkpoint and the finished adapter are the same files as ever, nothing has to be gathered for them, and any
number of processes can take up what another number left. Embeddings, norms and output layer, which the loss reads by
themselves, stay whole too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from foundry_pipeline.training.team import Team


def mesh_of(team: Team, device: str) -> Any:
    """The processes among which weights are shared out; every process of the team has to call it at the same time."""
    from torch.distributed.device_mesh import init_device_mesh

    return init_device_mesh(device.partition(":")[0], (team.size,))


def share_out(model: Any, mesh: Any, device: str) -> None:
    """Shard a loaded model's decoder layers over the mesh, in place, and move the rest to `device`.

    From then on every process has to make as many forward and backward passes as every other.
    """
    from torch.distributed.fsdp import fully_shard

    decoder = model.get_base_model().get_decoder()
    adapter = {p for p in model.parameters() if p.requires_grad}
    for layer in decoder.layers:
        fully_shard(layer, mesh=mesh, ignored_params=adapter)
    sharded = {p for layer in decoder.layers for p in layer.parameters() if p not in adapter}
    # Of the decoder itself nothing is shared; as the layers' root it lets one be fetched while another computes.
    whole = {p for p in model.parameters() if p not in sharded}
    fully_shard(decoder, mesh=mesh, ignored_params=whole, reshard_after_forward=False)
    for p in whole:
        p.data = p.data.to(device)
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, buffer.to(device))
