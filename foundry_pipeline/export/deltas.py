"""What the adapter changes of every weight, beside what writing the sum in fewer bits changes of it.

    compare_weights(base, adapter, merged, {"f16": …, "q4_k_m": …}, rows=64)
    → (rows for a frame: one for each adapted tensor and way of writing it, facts about the merge)

A way of writing is `merged` (bfloat16) or a GGUF type. Of each tensor `rows` rows, evenly spaced, are read:

- `delta_rms`: root mean square of the LoRA delta, scale · B·A;
- `step_rms`: root mean square of (weight as written − exact sum), what rounding or quantizing moved it by;
- `ratio`: the first over the second; below 1 a single weight's change drowns in the step;
- `kept`: the share of the delta that is in the written weights along its own direction, ⟨written − base, delta⟩ over
  ⟨delta, delta⟩. Quantizing noise averages out over a layer, so a drowned delta may still be kept; near 0 it is gone.

The merge itself is held to the adapter weight by weight, over whole tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foundry_pipeline.errors import FoundryError
from foundry_pipeline.export.gguf_rows import LAYER, GgufWeights
from foundry_pipeline.export.merge import adapter_pairs, adapter_scale, require_full_precision

if TYPE_CHECKING:
    import torch

MERGED = "merged"
_OTHER_TOWERS = ("vision", "audio")
_STEPS_SHOWN = 5


class Weights:
    """The tensors of a model folder, in one safetensors file or several."""

    def __init__(self, folder: Path) -> None:
        from safetensors import safe_open

        self.folder = folder
        self._files = [safe_open(path, framework="pt") for path in sorted(folder.glob("*.safetensors"))]
        self._home = {name: file for file in self._files for name in file.keys()}  # noqa: SIM118 - a file handle

    @property
    def names(self) -> set[str]:
        return set(self._home)

    def __getitem__(self, name: str) -> torch.Tensor:
        tensor: torch.Tensor = self._home[name].get_tensor(name)
        return tensor

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._home[name].get_slice(name).get_shape())

    def of_layer(self, layer: str, shape: tuple[int, ...]) -> str:
        """Name of the weight of a layer, as modules are named. Checkpoints of models with several towers name it by
        another beginning. Raises FoundryError where none, or more than one, fits."""
        if f"{layer}.weight" in self._home:
            return f"{layer}.weight"
        found = LAYER.search(layer)
        ending = f"layers.{found.group(1)}.{found.group(2)}.weight" if found else f"{layer.split('.')[-1]}.weight"
        fits = [
            n
            for n in sorted(self._home)
            if (n == ending or n.endswith(f".{ending}"))
            and self.shape(n) == shape
            and not any(tower in n for tower in _OTHER_TOWERS)
        ]
        if len(fits) != 1:
            raise FoundryError(
                f"the weight of {layer} is not to be found" if not fits else f"{layer} may be any of {', '.join(fits)}",
                where=str(self.folder),
                mend="merge the adapter into the base that it was trained on",
            )
        return fits[0]


def compare_weights(
    base: Path, adapter: Path, merged: Path, files: Mapping[str, Path], *, rows: int
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Rows as described above, and what was found of the merge:

    `tensors` adapted, `worst_steps` (of bfloat16, between a merged weight and the rounded sum; 0 is equal), `differing`
    (share of adapted weights that are not equal), `changed_elsewhere` (tensors without an adapter that were changed),
    `misplaced` (tensors that the F16 file holds otherwise than the merged folder).
    """
    import torch
    from safetensors import safe_open

    require_full_precision(base)
    before, after = Weights(base), Weights(merged)
    scale = adapter_scale(adapter)
    written = {kind: GgufWeights(path) for kind, path in files.items()}
    found: list[dict[str, Any]] = []
    worst = differing = total = 0
    adapted: set[str] = set()
    misplaced: list[str] = []
    with torch.inference_mode(), safe_open(adapter / "adapter_model.safetensors", framework="pt") as lora:
        for layer, down, up in adapter_pairs(lora, adapter):
            name = before.of_layer(layer, (up.shape[0], down.shape[1]))
            after_name = after.of_layer(layer, (up.shape[0], down.shape[1]))
            adapted.add(after_name)
            exact = before[name].float()
            delta = (up.float() @ down.float()) * scale
            stored = after[after_name]
            rounded = (exact + delta).to(torch.bfloat16)
            if not torch.equal(stored, rounded):
                steps = _steps(stored, rounded)
                worst, differing = max(worst, int(steps.max())), differing + int((steps > 0).sum())
            total += rounded.numel()
            place = torch.linspace(0, len(exact) - 1, min(rows, len(exact))).round().long()
            target, change = (exact + delta)[place], delta[place]
            ways: list[tuple[str, str, torch.Tensor]] = [(MERGED, "BF16", stored[place].float())]
            for kind, file in written.items():
                read = file.rows(layer, place, stored)
                if read is None:
                    misplaced.append(f"{layer} ({kind})")
                    continue
                ways.append((kind, *read))
            for kind, stored_as, values in ways:
                error = (values - target).double()
                wide = change.double()
                found.append(
                    {
                        "tensor": layer,
                        "mode": kind,
                        "stored_as": stored_as,
                        "delta_rms": _rms(wide),
                        "step_rms": _rms(error),
                        "ratio": _ratio(_rms(wide), _rms(error)),
                        "kept": _ratio(float(((error + wide) * wide).sum()), float((wide * wide).sum())),
                        "weights": wide.numel(),
                    }
                )
    elsewhere = sorted(
        n
        for n in before.names & after.names - adapted
        if not torch.equal(before[n].to(torch.bfloat16), after[n].to(torch.bfloat16))
    )
    return found, {
        "tensors": len(adapted),
        "worst_steps": worst,
        "differing": round(differing / total, 9),
        "changed_elsewhere": elsewhere[:_STEPS_SHOWN],
        "misplaced": misplaced[:_STEPS_SHOWN],
    }


def summary(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """By way of writing: how many tensors there are, in how many the delta is below the step (`below`), and `ratio`,
    `kept` and how sure that is (`kept_error`) over all of them together, each tensor weighing as much as its delta."""
    out: dict[str, dict[str, Any]] = {}
    for kind in dict.fromkeys(r["mode"] for r in rows):
        mine = [r for r in rows if r["mode"] == kind]
        deltas = sum(r["delta_rms"] ** 2 * r["weights"] for r in mine)
        steps = sum(r["step_rms"] ** 2 * r["weights"] for r in mine)
        kept = sum((r["kept"] or 0.0) * r["delta_rms"] ** 2 * r["weights"] for r in mine)
        out[kind] = {
            "tensors": len(mine),
            "below": sum(r["ratio"] is not None and r["ratio"] < 1 for r in mine),
            "ratio": _ratio(deltas**0.5, steps**0.5),
            "kept": _ratio(kept, deltas),
            # Of independent errors: one standard deviation of `kept`.
            "kept_error": _ratio(steps**0.5, (deltas * sum(r["weights"] for r in mine)) ** 0.5),
        }
    return out


def _steps(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """How many bfloat16 numbers lie between two tensors, element by element."""
    import torch

    def ordered(values: torch.Tensor) -> torch.Tensor:
        bits = values.to(torch.bfloat16).view(torch.int16).int()
        return torch.where(bits < 0, -(bits & 0x7FFF), bits)

    return (ordered(one) - ordered(other)).abs()


def _rms(values: torch.Tensor) -> float:
    return float(f"{float(values.square().mean().sqrt()):.6g}")


def _ratio(one: float, other: float) -> float | None:
    return float(f"{one / other:.6g}") if other else None
