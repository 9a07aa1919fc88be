"""Configuration of the option layer; imports no torch, so that errors are reported at once."""

from typing import Literal

from pydantic import NonNegativeInt, PositiveFloat, PositiveInt, ValidationInfo, field_validator

from metarl.config.registry import Settings


class OptionsConfig(Settings):
    """Configuration of the option layer, for agents whose policy may act through options."""

    options: NonNegativeInt = 0
    """number of options that a master chooses among; 0: a flat policy"""
    pretrained_options: tuple[str, ...] = ()
    """pretrained options in their place: runs, or path/to/file.py:Class"""
    termination: Literal["fixed", "random", "learned"] = "learned"
    """what ends an option: its length, a random length, or learning"""
    option_length: PositiveInt = 10
    """steps of an option: exactly, in the mean, or in the mean before training"""
    sub_hidden_sizes: tuple[PositiveInt, ...] | None = (64,)
    """hidden layers of sub-policies on the observation; none: they are heads beside the master's"""
    initial_gain: PositiveFloat = 0.01
    """scale of the first policy's outputs: how much the first options differ"""

    @field_validator("pretrained_options")
    @classmethod
    def _instead(cls, value: tuple[str, ...], others: ValidationInfo) -> tuple[str, ...]:
        if value and others.data.get("options"):
            raise ValueError("pretrained options replace learned ones; set options to 0")
        return value
