"""llama.cpp's own sampling for one request: a grammar where there is a schema, top-k, top-p, temperature, a seeded draw."""

from __future__ import annotations

from typing import Any

from foundry_pipeline.errors import FoundryError
from foundry_pipeline.models.requests import ChatRequest


def sampler_chain(request: ChatRequest, vocab: Any = None) -> Any:
    """llama.cpp's sampler for one request; to be freed by the caller. `vocab` is needed for a request with a schema.

    Raises FoundryError for a schema that has no grammar.
    """
    import llama_cpp as lib

    chain = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
    if request.schema:
        grammar = lib.llama_sampler_init_grammar(vocab, schema_grammar(request).encode(), b"root")
        if not grammar:
            lib.llama_sampler_free(chain)
            raise _no_grammar(request, "llama.cpp refuses the grammar")
        # First of all, since the others would throw out what the grammar needs.
        lib.llama_sampler_chain_add(chain, grammar)
    if request.temperature == 0:
        lib.llama_sampler_chain_add(chain, lib.llama_sampler_init_greedy())
        return chain
    lib.llama_sampler_chain_add(chain, lib.llama_sampler_init_top_k(request.top_k))
    lib.llama_sampler_chain_add(chain, lib.llama_sampler_init_top_p(request.top_p, 1))
    lib.llama_sampler_chain_add(chain, lib.llama_sampler_init_temp(request.temperature))
    lib.llama_sampler_chain_add(chain, lib.llama_sampler_init_dist(request.seed))
    return chain


def schema_grammar(request: ChatRequest) -> str:
    """The grammar (GBNF) of a request's JSON schema."""
    from llama_cpp.llama_grammar import json_schema_to_gbnf

    try:
        return str(json_schema_to_gbnf(request.schema))
    except (ValueError, LookupError, TypeError, AttributeError, AssertionError, RecursionError) as error:
        raise _no_grammar(request, f"{type(error).__name__}: {error}") from error


def _no_grammar(request: ChatRequest, why: str) -> FoundryError:
    return FoundryError(
        f"no grammar can be made from the schema of the answer ({why})",
        where=f"request {request.request_id}",
        mend="keep the schema to objects, arrays, strings, numbers, booleans and enums, or ask for free text",
    )
