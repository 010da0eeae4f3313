"""Models that are asked over the network: Claude, and servers that speak the OpenAI protocol.

    model = remote_ref("anthropic", "claude-sonnet-5-5", remote=RemoteService(concurrency=8))
    generate(model, requests, …)        # as for a local model; every answer is stored the moment it arrives

An answer is stored under a hash of the very body that is sent, of the model, and of the service it is sent to
(`client.request_key`). So nothing that was answered is asked, or paid, again, whatever the code around it has become.
"""

from __future__ import annotations

from foundry_pipeline.declarations.remote import RemoteService
from foundry_pipeline.errors import FoundryError
from foundry_pipeline.lineage.hashing import digest
from foundry_pipeline.models.requests import REMOTE, Backend, ModelRef


def remote_ref(
    backend: Backend, model: str, *, title: str = "", revision: str = "", remote: RemoteService | None = None
) -> ModelRef:
    """A remote model. `revision` is whatever tells two states of a server's model apart (an adapter's hash, say)."""
    if backend not in REMOTE:
        raise FoundryError(f"`{backend}` is no remote backend", where=title or model, mend="use anthropic or openai")
    if not model.strip():
        raise FoundryError("a remote model needs a model id", where=title or backend, mend="declare `model`")
    return ModelRef(
        backend=backend,
        path=model,
        content_hash=digest({"provider": backend, "model": model, "revision": revision}),
        adapter_path=None,
        adapter_hash=None,
        title=title or model,
        remote=(remote or RemoteService()).model_dump(mode="json"),
    )
