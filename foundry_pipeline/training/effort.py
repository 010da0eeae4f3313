"""What a training asks of a machine: floating-point operations and memory, from the model's shape and its rows.

    lengths = Lengths(prompt=120, chosen=700, rejected=850)          mean tokens of a row
    operations(shape, lengths, method="orpo", rank=64, recompute=True)   → FLOPs of one row, forward and backward
    memory(shape, rank=64, optimizer="adamw_8bit", weights="nf4", …)     → bytes by what they hold

Operations are those of the project's own step: the prompt once, no padding, the output layer for scored tokens alone,
and no gradient of frozen weights. They are held to torch's own counter in the tests. Softmax, norms and the like are
left out, as everywhere. Memory is a reckoning, not a measurement: what the tensors named here take, without the
allocator's and the driver's share.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

from foundry_pipeline.training.preference.attention import BLOCK
from foundry_pipeline.training.preference.vocabulary import CHUNK
from foundry_pipeline.training.size import Shape

Weights = Literal["bfloat16", "float32", "nf4"]
# bitsandbytes: 64 weights share a scale of one byte, 256 of these scales one of four bytes
_NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
_OPTIMIZER_BYTES = {"adamw": 8, "adamw_8bit": 2}  # two moments for each trained parameter
_MASTER = 4  # bytes of an adapter's parameter, and of its gradient: float32


@dataclass(frozen=True)
class Lengths:
    """Tokens of a row: prompt, chosen and rejected answer (0 for supervised rows). Means need not be whole."""

    prompt: float
    chosen: float
    rejected: float

    @property
    def tokens(self) -> float:
        """Tokens that pass the model once the prompt is shared; an answer's last token is only a label."""
        return self.prompt + max(self.chosen - 1, 0) + max(self.rejected - 1, 0)

    @property
    def seen(self) -> float:
        """Query-key pairs that attention computes: causal, in blocks of rows that read all keys up to their last."""
        whole, rejected = self.prompt + max(self.chosen - 1, 0), max(self.rejected - 1, 0)
        return _causal(whole) + rejected * self.prompt + _causal(rejected)

    def scored(self, method: str) -> float:
        """Rows of the output layer: every answer token, and with ORPO the prompt's own (its NLL covers both)."""
        return self.chosen + self.rejected + (self.prompt - 1 if method == "orpo" else 0)


def _causal(rows: float) -> float:
    return rows**2 / 2 + rows * min(rows, BLOCK) / 2


def operations(shape: Shape, lengths: Lengths, *, method: str, rank: int, recompute: bool) -> float:
    """FLOPs of showing one row once, forward and backward, a multiplication and its addition counted as two.

    `recompute`: layers are run again in the backward pass (gradient checkpointing).
    """
    lora = rank * shape.lora_per_rank
    layers = 2 * (shape.linear + lora) * lengths.tokens + _attention(shape, lengths)
    # frozen weights pass the gradient on and get none; the adapter's get one; attention has four products for two
    backward = 2 * (shape.linear + 2 * lora) * lengths.tokens + 2 * _attention(shape, lengths)
    output = 2 * 2 * shape.head * lengths.scored(method)
    return layers * (2 if recompute else 1) + backward + output


def reference_operations(shape: Shape, lengths: Lengths) -> float:
    """FLOPs of reading one row without the adapter and without gradients: DPO's reference, once a training."""
    return 2 * shape.linear * lengths.tokens + _attention(shape, lengths) + 2 * shape.head * lengths.scored("dpo")


def _attention(shape: Shape, lengths: Lengths) -> float:
    return 2 * 2 * shape.layers * shape.query * lengths.seen


@dataclass(frozen=True)
class Memory:
    """Bytes, by what they hold."""

    weights: float
    adapter: float
    gradients: float
    optimizer: float
    activations: float
    logits: float

    @property
    def total(self) -> float:
        return sum(asdict(self).values())

    def rounded(self) -> dict[str, int]:
        """Whole bytes by name, and their `total`."""
        return {name: round(value) for name, value in asdict(self).items()} | {"total": round(self.total)}


def memory(
    shape: Shape,
    *,
    rank: int,
    optimizer: str,
    weights: Weights,
    tokens: int,
    context: float,
    recompute: bool,
    shards: int = 1,
) -> Memory:
    """What one process holds at its largest: `tokens` in one forward pass, each looking back on `context` tokens.

    With `recompute` a layer keeps only its input, and one layer at a time is held whole. Linear layers that are shared out
    among `shards` processes are there in part, and two of them whole: the one at work and the one that is fetched.
    """
    adapter = rank * shape.lora_per_rank
    rest = shape.parameters - shape.linear
    frozen = {
        "bfloat16": 2.0 * shape.parameters,
        "float32": 4.0 * shape.parameters,
        "nf4": _NF4_BYTES * shape.linear + 2 * rest,  # embeddings, norms and output layer stay in bfloat16
    }[weights]
    if shards > 1:
        linear = shape.linear * (4.0 if weights == "float32" else 2.0)
        frozen += linear / shards + 2 * linear / shape.layers - linear
    wide = 4 if weights == "float32" else 2
    layer = _layer_bytes(shape, context, wide) * tokens
    held = shape.layers * shape.hidden * wide * tokens + layer if recompute else shape.layers * layer
    return Memory(
        weights=frozen,
        adapter=_MASTER * adapter,
        gradients=_MASTER * adapter,
        optimizer=_OPTIMIZER_BYTES[optimizer] * adapter,
        activations=held,
        # a chunk of logits as computed, in float32, and as shares; and what each scored token keeps
        logits=CHUNK * shape.vocabulary * (2 * wide + 4) + tokens * shape.hidden * wide,
    )


def _layer_bytes(shape: Shape, context: float, wide: int) -> float:
    """What one layer keeps of one token for its backward pass, in bytes.

    Both norms keep their input and, in float32, what they normalized; attention its queries, keys, values, answers and
    probabilities; the feed-forward block gate, up, the gate's activation and the product.
    """
    norms = 2 * shape.hidden * (wide + 4)
    attention = (2 * shape.query + 2 * shape.key_value + shape.heads * context) * wide
    return norms + attention + 4 * shape.intermediate * wide
