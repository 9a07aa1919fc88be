"""What the options of several agents share; imports no torch."""

from __future__ import annotations

from typing import Literal

TaskInput = Literal["none", "row", "goal", "onehot"]
TASK_INPUT = "what the agent is shown of the task: nothing, its row (an oracle), its goal, or a one-hot of train_tasks"
