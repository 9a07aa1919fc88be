"""Adam, without torch's compiler."""

from inspect import unwrap
from typing import Any

import torch
from torch import Tensor


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

    @torch.no_grad()
    def descend(self) -> None:
        """`step`, fused, of the one group; parameters without a gradient stay as they are.

        With small networks what `step` looks up for every parameter takes longer than the step.
        """
        (group,) = self.param_groups
        parameters = [x for x in group["params"] if x.grad is not None]
        if not parameters:
            return
        states = [self.state[x] or self._begin(x) for x in parameters]
        first, second, steps = (
            [state[name] for state in states] for name in ("exp_avg", "exp_avg_sq", "step")
        )
        torch._foreach_add_(steps, 1)
        beta_1, beta_2 = group["betas"]
        torch._fused_adam_(
            parameters,
            [x.grad for x in parameters],
            first,
            second,
            [],
            steps,
            lr=group["lr"],
            beta1=beta_1,
            beta2=beta_2,
            weight_decay=0.0,
            eps=group["eps"],
            amsgrad=False,
            maximize=False,
        )

    def _begin(self, x: Tensor) -> dict[str, Tensor]:
        """Of a parameter before its first step."""
        state = self.state[x]
        state["step"] = torch.zeros((), device=x.device)
        state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(x), torch.zeros_like(x)
        return state


_step = unwrap(torch.optim.Adam.step)
