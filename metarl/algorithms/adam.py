"""Adam, without torch's compiler."""

from inspect import unwrap
from typing import Any

import torch


class Adam(torch.optim.Adam):
    """Torch's own, bit for bit.

    Torch wraps these methods in what its compiler needs. Importing that takes as long as importing
    torch, in every process that trains, and nothing here is compiled.
    """

    add_param_group = unwrap(torch.optim.Adam.add_param_group)
    zero_grad = unwrap(torch.optim.Adam.zero_grad)
    state_dict = unwrap(torch.optim.Adam.state_dict)
    load_state_dict = unwrap(torch.optim.Adam.load_state_dict)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One step."""
        return _step(self, closure)


_step = unwrap(torch.optim.Adam.step)
