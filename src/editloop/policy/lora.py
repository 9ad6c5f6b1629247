"""The settings of a LoRA adapter, which can be read without torch."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["LoraSettings"]


class LoraSettings(BaseModel):
    """The shape of a LoRA adapter."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rank: int = Field(default=16, ge=1, description="Rank of the adapter.")
    alpha: float = Field(
        default=32.0, gt=0, description="Scale of the adapter: it is multiplied by alpha/rank."
    )
    dropout: float = Field(default=0.0, ge=0, lt=1, description="Dropout before the adapter.")
    targets: str | tuple[str, ...] = Field(
        default="all-linear", description="Modules that get an adapter, by name; by default all linear ones."
    )
