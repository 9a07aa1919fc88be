"""Configuration of memories and image encoders; imports no torch, to report errors at once."""

from typing import Literal

from pydantic import NonNegativeInt, PositiveInt, ValidationInfo, field_validator

from metarl.config.registry import Settings

MemoryName = Literal["gru", "lstm", "keyed", "gru+keyed", "slots", "set", "transformer", "none"]
LOOKED_UP: tuple[MemoryName, ...] = ("keyed", "gru+keyed", "slots")
"""Memories whose key is the observation, or made from it."""


class ImageConfig(Settings):
    """How the images of an observation are read."""

    conv_channels: tuple[PositiveInt, ...] = (16, 32, 32)
    """channels of the convolutions that read images, each of 3 × 3 with stride 2; []: pixels"""
    image_features: PositiveInt = 64
    """features of an image after its convolutions"""


class MemoryConfig(Settings):
    """What a policy remembers of a trial."""

    memory: MemoryName = "gru"
    """recurrent: gru, lstm; looked up by the observation: keyed, gru+keyed, and slots, which know
    that discrete actions are exchangeable; a sum without order: set; transformer; none"""
    memory_width: PositiveInt = 64
    """units of the memory"""
    memory_keys: NonNegativeInt = 0
    """learned keys of keyed and slots; 0: the observation itself, which must be one-hot"""
    attention_layers: PositiveInt = 2
    """blocks of the transformer"""
    attention_heads: PositiveInt = 4
    """heads of every block; they share memory_width"""
    context: PositiveInt = 128
    """steps that a block of the transformer looks back, the present one among them"""

    @field_validator("attention_heads")
    @classmethod
    def _share_the_width(cls, value: int, others: ValidationInfo) -> int:
        width = others.data.get("memory_width", 0)
        if others.data.get("memory") == "transformer" and width % (2 * value):
            raise ValueError(f"memory_width {width} is no multiple of 2 · {value}")
        return value
