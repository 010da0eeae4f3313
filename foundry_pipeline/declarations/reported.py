"""`sources/reported/*.yaml`: figures told elsewhere, with the parts that they follow from, so that they can be recomputed.

    figures:
      - kind: share
        figure: brie-in-domain
        of: wins in blind comparisons in the domain
        count: 10
        n: 13
        told: 0.77
        tolerance: 0.005

A figure that does not follow from its parts says so (`expect: differs`), and one whose parts are not all given is
`not_reproducible`; both say why. `foundry reported --check` fails where a figure behaves other than it is declared to.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from foundry_pipeline.declarations.common import Category, Declaration, Difficulty

Expectation = Literal["holds", "differs", "not_reproducible"]


class Figure(Declaration):
    """What every reported figure has."""

    figure: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$", description="short name, used once")
    of: str = Field(description="what the figure is of, in plain words")
    expect: Expectation = "holds"
    because: str = Field(default="", description="why it differs, or what is missing; needed unless it holds")

    @model_validator(mode="after")
    def _says_why(self) -> Figure:
        if (self.expect == "holds") == bool(self.because):
            raise ValueError("`because` is given where a figure does not hold, and nowhere else")
        return self


class OneFigure(Figure):
    """A figure that is a single number."""

    told: float
    tolerance: float = Field(gt=0, description="half the last digit told, or more where the parts are rounded")


class SampleFigures(Declaration):
    mean: float
    sd: float = Field(gt=0)
    n: int = Field(ge=2)
    low: float | None = Field(default=None, description="lower bound told of the mean's 95 % interval")
    high: float | None = None


class TwoSamples(Figure):
    """Two independent samples known by mean, deviation and size, and the test told of them."""

    kind: Literal["two_samples"]
    a: SampleFigures
    b: SampleFigures
    t: float
    p: float
    g: float
    tolerance: float = Field(gt=0, description="of t, g and the bounds; p holds to its last printed digit")
    p_tolerance: float = Field(gt=0)


class Share(OneFigure):
    """So many of so many."""

    kind: Literal["share"]
    count: int = Field(ge=0)
    n: int = Field(ge=1)


class Ratio(OneFigure):
    """One number over another."""

    kind: Literal["ratio"]
    numerator: float
    denominator: float = Field(description="not zero")

    @model_validator(mode="after")
    def _divides(self) -> Ratio:
        if self.denominator == 0:
            raise ValueError("a ratio needs a denominator other than zero")
        return self


class ChangeRate(OneFigure):
    """A gain by the time it took: (after − before) / over."""

    kind: Literal["change_rate"]
    before: float
    after: float
    over: float = Field(gt=0)


class Variance(OneFigure):
    """Mean squared distance from the mean, with n below."""

    kind: Literal["variance"]
    values: tuple[float, ...] = Field(min_length=2)


class LearningRates(Declaration):
    improvement: float = Field(ge=0, le=1, description="share of wrong items that became right")
    forgetting: float = Field(ge=0, le=1, description="share of right items that became wrong")


class MetaLearning(OneFigure):
    """The meta-learning score: how much faster a model learns late than early, and how much less it forgets."""

    kind: Literal["meta_learning"]
    early: LearningRates
    late: LearningRates


class SuiteScores(Figure):
    """Every overall score told of a character's runs, from its categories and its difficulties by the suite's sizes.

    Names of figures in `not_reproducible` and `as_raw` are rows of `sources/<character>/reported/`.
    """

    kind: Literal["suite_scores"]
    character: str
    categories: dict[Category, Annotated[int, Field(ge=1)]]
    difficulties: dict[Difficulty, Annotated[int, Field(ge=1)]]
    tolerance: float = Field(gt=0)
    not_reproducible: dict[str, str] = Field(default={}, description="row → why its corrected overall does not follow")
    as_raw: dict[str, float] = Field(
        default={}, description="row whose corrected overall is its raw one → tolerance of that"
    )

    @model_validator(mode="after")
    def _one_suite(self) -> SuiteScores:
        if sum(self.categories.values()) != sum(self.difficulties.values()):
            raise ValueError("categories and difficulties count different numbers of prompts")
        return self


class ReportedFigures(Declaration):
    """One file of `sources/reported/`."""

    status: Literal["reported"]
    source: str
    figures: tuple[
        Annotated[
            TwoSamples | Share | Ratio | ChangeRate | Variance | MetaLearning | SuiteScores,
            Field(discriminator="kind"),
        ],
        ...,
    ] = Field(min_length=1)
