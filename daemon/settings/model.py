"""Which model a pipeline keeps fresh, and how its data is read."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from daemon.core import plans
from daemon.settings.base import Model

FACTORY = r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$"


class TokenizerConfiguration(Model):
    """How text becomes tokens: by its bytes, as a tokenizer.json says, or as one trained on the first data does."""

    kind: Literal["bytes", "file", "train"] = "bytes"
    path: Path | None = Field(default=None, description="of kind file: a tokenizer.json")
    vocabulary: int | None = Field(default=None, ge=258, le=1_000_000, description="of kind train: tokens in all")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        needs = {"file": "path", "train": "vocabulary"}
        for kind, field in needs.items():
            given = getattr(self, field) is not None
            if given != (self.kind == kind):
                message = f"`{field}` belongs to a tokenizer of kind {kind}, and it needs one"
                raise ValueError(message)
        return self

    def plain(self, base: Path) -> plans.TokenizerSettings:
        """Return the same as plans carry it; paths count from `base`."""
        path = str(base / self.path) if self.path else None
        return plans.TokenizerSettings(kind=self.kind, path=path, vocabulary=self.vocabulary)


class LlamaSettings(Model):
    """The built-in decoder: a preset, and what shall be different from it."""

    kind: Literal["llama"] = "llama"
    preset: str = Field(default="nano", pattern=r"^[a-z0-9_-]+$")
    tokenizer: TokenizerConfiguration = TokenizerConfiguration()
    width: int | None = Field(default=None, ge=8)
    layers: int | None = Field(default=None, ge=1)
    heads: int | None = Field(default=None, ge=1)
    key_value_heads: int | None = Field(default=None, ge=1)
    hidden: int | None = Field(default=None, ge=8)
    tied: bool | None = Field(default=None, description="whether input and output share their embedding")

    @property
    def named(self) -> str:
        """The model in two words."""
        return f"{self.kind} {self.preset}"

    def plain(self, base: Path) -> plans.ModelSettings:
        """Return the same as plans carry it; paths count from `base`."""
        sizes = plans.Sizes(
            width=self.width,
            layers=self.layers,
            heads=self.heads,
            key_value_heads=self.key_value_heads,
            hidden=self.hidden,
            tied=self.tied,
        )
        return plans.ModelSettings(
            kind=self.kind, preset=self.preset, sizes=sizes, tokenizer=self.tokenizer.plain(base)
        )


class HfSettings(Model):
    """A causal language model of Hugging Face's layout that is continued, with its own tokenizer."""

    kind: Literal["hf"]
    path: Path = Field(description="its folder: config.json, model.safetensors, tokenizer.json")

    @property
    def named(self) -> str:
        """The model in two words."""
        return f"{self.kind} {self.path}"

    def plain(self, base: Path) -> plans.ModelSettings:
        """Return the same as plans carry it; paths count from `base`."""
        return plans.ModelSettings(kind=self.kind, preset="", path=str(base / self.path))


class ModuleSettings(Model):
    """Any module with a loss: what `factory` returns."""

    kind: Literal["module"]
    factory: str = Field(pattern=FACTORY, description="package.module:function")

    @property
    def named(self) -> str:
        """The model in two words."""
        return f"{self.kind} {self.factory}"

    def plain(self, base: Path) -> plans.ModelSettings:
        """Return the same as plans carry it; it names no paths."""
        return plans.ModelSettings(kind=self.kind, preset="", factory=self.factory)


ModelConfiguration = Annotated[LlamaSettings | HfSettings | ModuleSettings, Field(discriminator="kind")]


class DataConfiguration(Model):
    """How arrivals are read, and what is held out of training."""

    text: str = Field(default="text", min_length=1, description="field of JSONL and Parquet that holds the text")
    group: str = Field(default="group", min_length=1, description="field that says what belongs together")
    held_out: float = Field(default=0.05, gt=0, le=0.5, description="about the share of documents never trained on")

    def plain(self) -> plans.DataSettings:
        """Return the same as plans carry it."""
        return plans.DataSettings(text=self.text, group=self.group, held_out=self.held_out)
