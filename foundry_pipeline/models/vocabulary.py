"""The token vocabulary as llama.cpp reads it from a GGUF file, and the repair of what `transformers` loses of it.

A GGUF names its pre-tokenizer by one word (`tokenizer.ggml.pre`), the rule by which text is cut before byte pairs are
merged. `transformers` 5 ignores that word: for `smollm` it forgets that digits stand alone, so `½` and a digit of
another script get other ids than the model was trained on. `repair_tokenizer` puts the rule back, and
`check_parity` refuses a tokenizer that still differs from llama.cpp's. Two differences stay. A code point that Unicode
has not assigned stands alone in llama.cpp and joins its neighbours in `transformers`. A control character for which the
vocabulary has no token is left out by both, but `transformers` then joins what stood on either side of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foundry_pipeline.errors import FoundryError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PROBES: tuple[str, ...] = (
    "Hello world",
    "In 1787, 12 states; 345.67 per cent, ½ of them, x² and ٣ and Ⅷ",
    "  spaces   here \n\n new\tline  ",
    "don't I'm we've DON'T I'M they’re",
    "naïve café — “quotes” … ﬁ e\u0301",
    "日本語 한국어 🎉👩\u200d🚀",
    "\r\n a\r\n\u00a0nbsp\u2003em a_b-c:d/e",
    "",
)
"""Texts on which tokenizers of the same vocabulary are known to part: digits, marks, blanks, other scripts."""


class Vocabulary:
    """llama.cpp's vocabulary of one GGUF file. With `weights` they are mapped, too, so that they can be counted.

    Use as a context manager, or call `close`. `tokenize` gives the ids that the model is fed for a rendered chat.
    """

    def __init__(self, path: Path, *, weights: bool = False) -> None:
        import llama_cpp

        from foundry_pipeline.models.llama_log import silence

        silence()
        self._lib = llama_cpp
        params = llama_cpp.llama_model_default_params()
        params.vocab_only = not weights
        params.use_extra_bufts = False  # no second copy of the weights in the order that computing wants
        self._model: Any = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
        if not self._model:
            raise FoundryError(
                "llama.cpp cannot read this file as a model",
                where=str(path),
                mend="check that it is a whole GGUF file; a cut-off download has to be fetched again",
            )
        self._vocab = llama_cpp.llama_model_get_vocab(self._model)

    def __enter__(self) -> Vocabulary:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        if self._model:
            self._lib.llama_model_free(self._model)
            self._model = None

    def tokenize(self, text: str) -> list[int]:
        """Ids of a text; special tokens are parsed, none is added in front."""
        return tokenize(self._vocab, text)

    def metadata(self, key: str) -> str | None:
        """One string of the file's metadata, or None where it has no such key."""
        return metadata(self._model, key)

    def parameters(self) -> int:
        """How many parameters the file holds; 0 where it was opened without weights."""
        return int(self._lib.llama_model_n_params(self._model))

    def begins(self) -> str | None:
        """The token that servers put in front of every text because the file says so, as text; None where it does not."""
        if not self._lib.llama_vocab_get_add_bos(self._vocab):
            return None
        token = self._lib.llama_vocab_bos(self._vocab)
        return str(self._lib.llama_vocab_get_text(self._vocab, token).decode()) if token >= 0 else None

    def end_of_generation(self) -> list[int]:
        """Every token at which llama.cpp ends an answer: the declared end first, the others in order of id."""
        total = self._lib.llama_vocab_n_tokens(self._vocab)
        ends = [i for i in range(total) if self._lib.llama_vocab_is_eog(self._vocab, i)]
        declared = self._lib.llama_vocab_eos(self._vocab)
        return sorted(ends, key=lambda token: (token != declared, token))


def tokenize(vocab: Any, text: str) -> list[int]:
    """Ids of a text under a llama.cpp vocabulary handle; special tokens are parsed, none is added in front."""
    import llama_cpp

    raw = text.encode("utf-8")
    room = len(raw) + 8
    while True:
        buffer = (llama_cpp.llama_token * room)()
        count = llama_cpp.llama_tokenize(vocab, raw, len(raw), buffer, room, False, True)
        if count >= 0:
            return list(buffer[:count])
        room = -count


def metadata(model: Any, key: str) -> str | None:
    """One string of a loaded model's GGUF metadata, or None where it has no such key."""
    import ctypes

    import llama_cpp

    size = 4096
    while True:
        buffer = ctypes.create_string_buffer(size)
        length = llama_cpp.llama_model_meta_val_str(model, key.encode(), buffer, size)
        if length < 0:
            return None
        if length < size:
            return buffer.value.decode("utf-8")
        size = length + 1


def repair_tokenizer(tokenizer: PreTrainedTokenizerFast, pre: str | None) -> None:
    """Give a tokenizer restored from a GGUF the pre-tokenizer that the file names; in place.

    Only names whose rule is known here are touched. Whether the outcome is right is for `check_parity` to say.
    """
    from tokenizers import pre_tokenizers

    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    if pre == "smollm":
        backend = tokenizer.backend_tokenizer
        backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level])


def check_parity(
    tokenizer: PreTrainedTokenizerFast, vocabulary: Vocabulary, where: str, probes: Sequence[str] = PROBES
) -> None:
    """Refuse a tokenizer whose ids for the probes, or for the tokenizer's own special tokens, are not llama.cpp's.

    Raises FoundryError naming the first text that differs and both lists of ids.
    """
    special = "".join(f"{token}a\n" for token in tokenizer.all_special_tokens)
    for text in (*probes, special):
        ours = tokenizer(text, add_special_tokens=False)["input_ids"]
        theirs = vocabulary.tokenize(text)
        if ours != theirs:
            raise FoundryError(
                f"the tokenizer restored from the GGUF reads {text!r} as {ours}, llama.cpp as {theirs}",
                where=where,
                mend="add the pre-tokenizer that the file names (tokenizer.ggml.pre = "
                f"{vocabulary.metadata('tokenizer.ggml.pre')}) to repair_tokenizer in foundry_pipeline/models/vocabulary.py",
            )
