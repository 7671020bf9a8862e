"""How a retrain chooses the band of the past that it trains on: the configuration of the stage `curate`."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from daemon.core.plans import Curation, Cut


class CutSettings(BaseModel):
    """How much of each tail of the scores goes: a share of the documents, or so many sigma from the mean."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    low: float = Field(default=0.0, ge=0, description="of what the champion finds easiest")
    high: float = Field(default=0.0, ge=0, description="of what it finds hardest")


class CurationSettings(BaseModel):
    """Train on a band of the past: every document is scored by its loss under the champion."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    by: Literal["quantile", "sigma"] = Field(default="quantile", description="what `low` and `high` of a cut are")
    cuts: tuple[CutSettings, ...] = Field(
        default=(CutSettings(high=0.15), CutSettings(high=0.3), CutSettings(low=0.1, high=0.3)),
        min_length=1,
        max_length=8,
        description="the cuts that are tried; the one with the least loss on a development slice is kept",
    )
    trial: float = Field(default=0.1, gt=0, le=1, description="share of the run's budget that each trial trains on")
    development: float = Field(default=0.1, gt=0, lt=0.5, description="share of documents in the development slice")
    rewrite: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$",
        description="your function 'package.module:name' that rewrites a kept document, or leaves it out",
    )

    @model_validator(mode="after")
    def _something_is_kept(self) -> Self:
        if self.by == "quantile" and any(cut.low + cut.high >= 1 for cut in self.cuts):
            message = "`low` and `high` of a cut by quantile are shares of the documents: together below 1"
            raise ValueError(message)
        return self

    def curation(self) -> Curation:
        """Return it as a plan carries it."""
        return Curation(
            by=self.by,
            cuts=tuple(Cut(low=cut.low, high=cut.high) for cut in self.cuts),
            trial=self.trial,
            development=self.development,
            rewrite=self.rewrite,
        )
