"""Rows of a dataset as token ids, in exactly the form the model meets when it is asked.

    prompt "Why a republic?"  → <|im_start|>user … <|im_start|>assistant\\n      (the tokenizer's own chat template)
    answer "To refine …"      → To refine …<|im_end|>                            (ends where generation must stop)

Prompt and answer are tokenized apart, since at inference the prompt's tokens are fixed before the answer's first.
Nothing is cut: a row whose longer side exceeds `max_length` is left out and counted.
"""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foundry_pipeline.errors import FoundryError
from foundry_pipeline.training.plan import validation_rows


@dataclass(frozen=True)
class Example:
    """One pair in tokens. `rejected` is empty for supervised fine-tuning, `origin` where the data do not tell it."""

    pair_id: str
    prompt_id: str
    upsample: int
    prompt: tuple[int, ...]
    chosen: tuple[int, ...]
    rejected: tuple[int, ...]
    origin: str = ""

    @property
    def length(self) -> int:
        """Tokens of the longer of its one or two sequences."""
        return len(self.prompt) + max(len(self.chosen), len(self.rejected))

    @property
    def tokens(self) -> int:
        """Tokens that pass through the model when the pair is shown once."""
        sides = [self.chosen, self.rejected] if self.rejected else [self.chosen]
        return sum(len(self.prompt) + len(side) for side in sides)


def render(tokenizer: Any, prompt: str, answer: str) -> tuple[str, str]:
    """Prompt and answer as text under the chat template; the answer ends with an end-of-turn token.

    Raises FoundryError when the template shows the prompt differently once an answer follows, since the model
    would then be trained on something it never sees.
    """
    user = [{"role": "user", "content": prompt}]
    asked: str = tokenizer.apply_chat_template(user, tokenize=False, add_generation_prompt=True)
    whole: str = tokenizer.apply_chat_template([*user, {"role": "assistant", "content": answer}], tokenize=False)
    if not whole.startswith(asked):
        raise FoundryError(
            "the chat template renders a prompt alone and a prompt with its answer differently",
            where=str(tokenizer.name_or_path),
            mend="use a base model whose chat template keeps the prompt as it is",
        )
    said = whole[len(asked) :].rstrip()
    return asked, said if said.endswith(tokenizer.eos_token) else said + tokenizer.eos_token


def load_examples(
    parquet: Path, tokenizer: Any, method: str, max_length: int, order: str = "shuffle"
) -> tuple[list[Example], list[dict[str, Any]]]:
    """All rows in tokens, in order of pair_id, and those left out as too long: `{pair_id, tokens}`.

    `order` is how an epoch will show them; one that goes by origin needs that column.

    Raises FoundryError for a missing column or text, or when no row is left.
    """
    import polars as pl

    texts = ["prompt", "chosen"] if method == "sft" else ["prompt", "chosen", "rejected"]
    needed = ["pair_id", "prompt_id", "upsample", *texts, *([] if order == "shuffle" else ["origin"])]
    frame = pl.read_parquet(parquet)
    if missing := [name for name in needed if name not in frame.columns]:
        raise FoundryError(f"columns are missing: {', '.join(missing)}", where=str(parquet), mend="build the dataset")
    for name in texts:
        if bad := frame.filter(pl.col(name).is_null() | (pl.col(name).str.strip_chars() == "")).height:
            raise FoundryError(f"{bad} rows without text in `{name}`", where=str(parquet), mend="build the dataset")

    def encode(text: str) -> tuple[int, ...]:
        return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])

    kept: list[Example] = []
    dropped: list[dict[str, Any]] = []
    for row in frame.select(needed).sort("pair_id").iter_rows(named=True):
        prompt, chosen = render(tokenizer, row["prompt"], row["chosen"])
        rejected = "" if method == "sft" else render(tokenizer, row["prompt"], row["rejected"])[1]
        example = Example(
            row["pair_id"],
            row["prompt_id"],
            row["upsample"],
            encode(prompt),
            encode(chosen),
            encode(rejected),
            row.get("origin", ""),
        )
        if example.length > max_length:
            dropped.append({"pair_id": example.pair_id, "tokens": example.length})
        else:
            kept.append(example)
    if not kept:
        raise FoundryError(
            f"none of {frame.height} rows fits into {max_length} tokens",
            where=str(parquet),
            mend="raise `max_length` of the profile, under assets/profiles/",
        )
    return kept, dropped


def split(examples: list[Example], fraction: float, seed: int) -> tuple[list[Example], list[Example]]:
    """Training and validation rows, each pair repeated `upsample` times.

    Prompts are held out whole, so that no prompt, and no copy of an upsampled pair, stands on both sides. Of the
    prompts in seeded order those are held out that still fit into `ceil(fraction × rows)` rows.
    """
    room = validation_rows(sum(example.upsample for example in examples), fraction)
    groups: dict[str, list[Example]] = defaultdict(list)
    for example in examples:
        groups[example.prompt_id].append(example)
    order = sorted(groups)
    random.Random(seed).shuffle(order)
    held: set[str] = set()
    for prompt_id in order:
        size = sum(example.upsample for example in groups[prompt_id])
        if size <= room:
            held.add(prompt_id)
            room -= size
    training = [example for example in examples if example.prompt_id not in held for _ in range(example.upsample)]
    validation = [example for example in examples if example.prompt_id in held for _ in range(example.upsample)]
    return training, validation


def columns(example: Example, method: str) -> dict[str, list[int]]:
    """The example as the row that TRL's trainer of this method feeds to its collator."""
    prompt, chosen, rejected = list(example.prompt), list(example.chosen), list(example.rejected)
    if method == "sft":
        return {"input_ids": prompt + chosen, "labels": [-100] * len(prompt) + chosen}
    if method == "dpo":
        return {"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected}
    row = {"prompt_input_ids": prompt, "prompt_attention_mask": [1] * len(prompt)}
    for name, answer in (("chosen", chosen), ("rejected", rejected)):
        row[f"{name}_input_ids"] = prompt + answer
        row[f"{name}_attention_mask"] = [1] * len(prompt + answer)
        row[f"{name}_labels"] = [-100] * len(prompt) + answer
    return row
