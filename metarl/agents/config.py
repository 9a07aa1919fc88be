"""What the options of several agents share; imports no torch."""

from typing import Annotated, Literal

from pydantic import Field

TaskInput = Annotated[
    Literal["none", "row", "goal", "onehot"],
    Field(description="what the agent sees of the task: nothing, its row, its goal, or a one-hot"),
]
PRESET = Field(description="the named set of defaults")
