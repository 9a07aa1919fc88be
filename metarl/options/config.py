"""Options of the option layer; imports no torch, so that mistakes are reported at once."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from metarl.config.registry import Settings


class OptionsConfig(Settings):
    """Options of the option layer, for agents whose policy may act through it."""

    options: int = Field(
        0, ge=0, description="options that a master chooses among; 0: none, a flat policy"
    )
    pretrained_options: tuple[str, ...] = Field(
        (),
        description="options that are ready and are not learned instead: runs, or path/to/file.py:Class of one's own",
    )
    termination: Literal["fixed", "random", "learned"] = Field(
        "learned",
        description="what ends an option: its length, a length drawn when it begins, or what it learned",
    )
    option_length: int = Field(
        10,
        ge=1,
        description="steps of an option: exactly, or in the mean, or in the mean at first where it learns to end",
    )
    sub_hidden_sizes: tuple[int, ...] | None = Field(
        (64,),
        description="hidden layers of the sub-policies, which see the observation alone; none: they are heads beside the "
        "master's, and see what it sees",
    )
    initial_gain: float = Field(
        0.01,
        gt=0,
        description="scale of the first policy's outputs: how different the first options are",
    )

    @field_validator("pretrained_options")
    @classmethod
    def _instead(cls, given: tuple[str, ...], known: ValidationInfo) -> tuple[str, ...]:
        if given and known.data.get("options"):
            raise ValueError(
                "options that are ready are chosen instead of others; set options to 0"
            )
        return given
