"""Recurrent memories: GRU (Cho et al. 2014) and LSTM (Hochreiter & Schmidhuber 1997).

Equations and weight layout are those of ``torch.nn.GRU`` and ``torch.nn.LSTM`` with one layer. The
parameters are passed in, under the names ``w_ih [G·D, I]``, ``w_hh [G·D, D]``, ``b_ih [G·D]``,
``b_hh [G·D]`` (G = 3 or 4 gates, D the width). A leading axis N on all of them means one copy per
task; the inputs then carry it too.
"""

from dataclasses import dataclass
from operator import itemgetter
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction, FunctionCtx, once_differentiable

from metarl.core.types import Inputs, Params
from metarl.nn.mlp import affine, orthogonal

MemoryKind = Literal["gru", "lstm"]
State = tuple[Tensor, ...]
"""h of a GRU, h and c of an LSTM, each [N, M, D]."""

GATES = {"gru": 3, "lstm": 4}
_STATES = {"gru": 1, "lstm": 2}
_weights = itemgetter("w_ih", "w_hh", "b_ih", "b_hh")
_ONE_LAYER = (True, 1, 0.0)
"""Has biases, layers, dropout."""
_ONE_WAY = (False, False)
"""Bidirectional, batch_first."""


_BLOCK_ROWS = 1024  # steps × sequences of a backward block: what the second-level cache holds
_sigmoid_backward = torch.ops.aten.sigmoid_backward.grad_input
_tanh_backward = torch.ops.aten.tanh_backward.grad_input


@dataclass(frozen=True)
class RecurrentMemory:
    """A GRU or an LSTM of `width` units; its output is h."""

    kind: MemoryKind
    width: int
    slots: ClassVar = 0

    def output_width(self, input_width: int) -> int:
        return self.width

    def init(self, input_width: int, generator: torch.Generator) -> Params:
        return init(self.kind, input_width, self.width, generator)

    def start(self, rows: int, lanes: int, device: torch.device) -> State:
        return start(self.kind, self.width, rows, lanes, device)

    def step(self, params: Params, x: Tensor, inputs: Inputs, state: State) -> tuple[Tensor, State]:
        state = step(self.kind, params, x, state)
        return state[0], state

    def unroll(self, params: Params, x: Tensor, inputs: Inputs, state: State) -> Tensor:
        return unroll(self.kind, params, x, state)


def init(
    kind: MemoryKind,
    input_width: int,
    width: int,
    generator: torch.Generator,
) -> Params:
    """Orthogonal weights gate by gate, zero biases."""
    gates = GATES[kind]
    return {
        "w_ih": orthogonal(gates, width, input_width, generator),
        "w_hh": orthogonal(gates, width, width, generator),
        "b_ih": torch.zeros(gates * width),
        "b_hh": torch.zeros(gates * width),
    }


def start(
    kind: MemoryKind,
    width: int,
    rows: int,
    lanes: int,
    device: torch.device,
) -> State:
    """The empty memory: (h,) or (h, c), each [N, M, D] of zeros."""
    return torch.zeros(_STATES[kind], rows, lanes, width, device=device).unbind()


def step(
    kind: MemoryKind,
    params: Params,
    x: Tensor,
    state: State,
) -> State:
    """One step: x [N, M, I] and state [N, M, D] → state [N, M, D]; its first part is the output."""
    weights = _weights(params)
    if weights[0].dim() == 3:
        return _step_per_task(kind, weights, x, state)
    x, h, *c = [part.flatten(0, -2) for part in (x, *state)]
    if kind == "gru":
        return (torch.gru_cell(x, h, *weights).view_as(state[0]),)
    h, cell = torch.lstm_cell(x, (h, *c), *weights)
    return h.view_as(state[0]), cell.view_as(state[0])


def _step_per_task(
    kind: MemoryKind,
    weights: tuple[Tensor, ...],
    x: Tensor,
    state: State,
) -> State:
    """The same with one copy of the weights per task; gates and their names as in torch."""
    w_ih, w_hh, b_ih, b_hh = weights
    from_input = affine(x, w_ih, b_ih)
    from_memory = affine(state[0], w_hh, b_hh)
    if kind == "gru":
        in_r, in_z, in_n = from_input.chunk(3, -1)
        mem_r, mem_z, mem_n = from_memory.chunk(3, -1)
        n = torch.tanh(in_n + torch.sigmoid(in_r + mem_r) * mem_n)
        return (torch.lerp(n, state[0], torch.sigmoid(in_z + mem_z)),)
    i, f, g, o = (from_input + from_memory).chunk(4, -1)
    cell = torch.sigmoid(f) * state[1] + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(cell), cell


def unroll(
    kind: MemoryKind,
    params: Params,
    x: Tensor,
    state: State,
) -> Tensor:
    """A whole sequence: x [T, N, M, I] from state [N, M, D] → outputs [T, N, M, D].

    Same numbers as T calls of `step`. With shared parameters it is fast and has first-order
    gradients; with one copy per task it is the loop of steps, with gradients of every order.
    """
    weights = _weights(params)
    if weights[0].dim() == 3:
        outputs = []
        for x_t in x:
            state = _step_per_task(kind, weights, x_t, state)
            outputs.append(state[0])
        return torch.stack(outputs)
    sequence = x.flatten(1, 2)
    flat = [part.flatten(0, 1) for part in state]
    if kind == "gru" and x.is_cpu:
        output = _GRUSequence.apply(sequence, *flat, *weights)  # type: ignore[no-untyped-call]
    else:
        output = _library_sequence(kind, sequence, flat, weights)
    return output.view(*x.shape[:-1], -1)


def _library_sequence(
    kind: MemoryKind, x: Tensor, state: list[Tensor], weights: tuple[Tensor, ...]
) -> Tensor:
    """``(x [T, B, I], state [B, D]) → h [T, B, D]`` by oneDNN or cuDNN."""
    state = [part.unsqueeze(0) for part in state]
    if not x.is_cpu:
        weights = _side_by_side(weights)
        state = [part.contiguous() for part in state]  # cuDNN takes no other
    train = torch.is_grad_enabled()  # else cuDNN keeps nothing for a backward pass
    if kind == "lstm":
        return torch.lstm(x, state, weights, *_ONE_LAYER, train, *_ONE_WAY)[0]
    return torch.gru(x, state[0], weights, *_ONE_LAYER, train, *_ONE_WAY)[0]


def _side_by_side(weights: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The weights as parts of one buffer, as cuDNN wants them; else it warns at every call."""
    buffer = torch.cat([weight.flatten() for weight in weights])
    parts = buffer.split([weight.numel() for weight in weights])
    return tuple(part.view_as(weight) for part, weight in zip(parts, weights, strict=True))


class _GRUSequence(torch.autograd.Function):
    """``(x [T, B, I], h₀ [B, D], w_ih, w_hh, b_ih, b_hh) → h [T, B, D]``, with BPTT by hand.

    Fast on CPU cores, where the library's version is bound by memory traffic: the input products
    of all T steps are one product; every local derivative is formed in place, and a block of steps
    adds its share of the weights' gradients while it is still in the cache.

        r = σ(W_r x + U_r h + b_r)      z = σ(W_z x + U_z h + b_z)      q = U_n h + c_n
        n = tanh(W_n x + b_n + r ⊙ q)   h′ = (1 − z) ⊙ n + z ⊙ h
    """

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        x: Tensor,
        h: Tensor,
        w_ih: Tensor,
        w_hh: Tensor,
        b_ih: Tensor,
        b_hh: Tensor,
    ) -> Tensor:
        steps, batch, _ = x.shape
        width = h.shape[1]
        gates = [2 * width, width]  # r and z side by side, then n
        w_rz, w_n = w_ih.split(gates)
        u_rz, u_n = w_hh.split(gates)
        b_rz, b_n = b_ih.split(gates)
        c_rz, c_n = b_hh.split(gates)

        inputs = x.flatten(0, 1)
        rz = torch.addmm(b_rz + c_rz, inputs, w_rz.t()).view(steps, batch, -1)
        n = torch.addmm(b_n, inputs, w_n.t()).view(steps, batch, -1)
        q = torch.empty_like(n)
        hs = x.new_empty(steps + 1, batch, width)
        hs[0] = h

        r, z = rz.split(width, dim=2)
        u_rz = u_rz.t().contiguous()
        u_n = u_n.t().contiguous()
        sequence = zip(rz, r, z, n, q, hs[:-1], hs[1:], strict=True)
        for rz_t, r_t, z_t, n_t, q_t, h_t, h_next in sequence:
            rz_t.addmm_(h_t, u_rz).sigmoid_()
            torch.addmm(c_n, h_t, u_n, out=q_t)
            n_t.addcmul_(r_t, q_t).tanh_()
            torch.lerp(n_t, h_t, z_t, out=h_next)
        ctx.save_for_backward(x, w_ih, w_hh, rz, n, q, hs)
        return hs[1:]

    @staticmethod
    @once_differentiable
    def backward(ctx: BackwardCFunction, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        x, w_ih, w_hh, rz, n, q, hs = list(ctx.saved_tensors)  # one tensor, by torch's stubs
        steps, batch, width = n.shape
        gates = [2 * width, width]
        r, z = rz.split(width, dim=2)
        sequence = list(zip(grad_out, hs[:-1], r, z, n, q, strict=True))

        dx = torch.empty_like(x) if ctx.needs_input_grad[0] else None
        w_rz, w_n = w_ih.split(gates)
        dw_ih = torch.zeros_like(w_ih)
        dw_rz, dw_n = dw_ih.split(gates)
        dw_hh = torch.zeros_like(w_hh)
        db_n = w_hh.new_zeros(width)
        db_hh = w_hh.new_zeros(3 * width)

        block = min(steps, max(1, _BLOCK_ROWS // batch))
        d_rzq = x.new_empty(block, batch, 3 * width)
        d_n = x.new_empty(block, batch, width)
        slots = list(zip(d_rzq, *d_rzq.split(width, dim=2), d_n, strict=True))
        g = torch.zeros_like(hs[0])  # ∂L/∂h′ of the step at hand
        scratch = torch.empty_like(g)

        for stop in range(steps, 0, -block):
            first = max(0, stop - block)
            for t in range(stop - 1, first - 1, -1):
                dh_t, h_t, r_t, z_t, n_t, q_t = sequence[t]
                d_rzq_t, d_r, d_z, d_q, d_n_t = slots[t - first]
                g.add_(dh_t)
                torch.sub(h_t, n_t, out=scratch).mul_(g)
                _sigmoid_backward(scratch, z_t, grad_input=d_z)
                torch.mul(g, z_t, out=scratch)  # what reaches h past the gates
                g.sub_(scratch)
                _tanh_backward(g, n_t, grad_input=d_n_t)
                torch.mul(d_n_t, r_t, out=d_q)
                torch.mul(d_n_t, q_t, out=g)
                _sigmoid_backward(g, r_t, grad_input=d_r)
                torch.addmm(scratch, d_rzq_t, w_hh, out=g)

            length = stop - first
            of_n = d_n[:length].flatten(0, 1)
            of_rzq = d_rzq[:length].flatten(0, 1)
            of_rz, _ = of_rzq.split(gates, dim=1)
            inputs = x[first:stop].flatten(0, 1)
            dw_rz.addmm_(of_rz.t(), inputs)
            dw_n.addmm_(of_n.t(), inputs)
            dw_hh.addmm_(of_rzq.t(), hs[first:stop].flatten(0, 1))
            db_n.add_(of_n.sum(0))
            db_hh.add_(of_rzq.sum(0))
            if dx is not None:
                product = torch.addmm(of_n @ w_n, of_rz, w_rz)
                dx[first:stop] = product.view(length, batch, -1)
        db_rz, _ = db_hh.split(gates)
        return dx, g, dw_ih, dw_hh, torch.cat([db_rz, db_n]), db_hh
