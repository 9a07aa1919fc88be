"""Recurrent memories: GRU (Cho et al. 2014) and LSTM (Hochreiter & Schmidhuber 1997), one step or a whole sequence.

Equations and weight layout are those of ``torch.nn.GRU`` and ``torch.nn.LSTM`` with one layer. The parameters are passed
in, under the names ``w_ih [G·D, I]``, ``w_hh [G·D, D]``, ``b_ih [G·D]``, ``b_hh [G·D]`` (G = 3 or 4 gates, D the width). A
leading axis N on all of them means one copy a task; the inputs then carry it too.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from metarl.core.types import Params
from metarl.nn.mlp import affine

MemoryKind = Literal["gru", "lstm"]
GATES = {"gru": 3, "lstm": 4}

_BLOCK_ROWS = 1024  # steps × sequences of a block of the backward pass: about what the second-level cache holds
_sigmoid_backward = torch.ops.aten.sigmoid_backward.grad_input
_tanh_backward = torch.ops.aten.tanh_backward.grad_input


def start(
    kind: MemoryKind, width: int, rows: int, lanes: int, device: torch.device
) -> tuple[Tensor, ...]:
    """The empty memory: (h,) or (h, c), each [N, M, D] of zeros."""
    return tuple(
        torch.zeros(rows, lanes, width, device=device) for _ in range(1 if kind == "gru" else 2)
    )


def step(
    kind: MemoryKind, params: Params, x: Tensor, state: tuple[Tensor, ...]
) -> tuple[Tensor, ...]:
    """One step: x [N, M, I] and state [N, M, D] → state [N, M, D], whose first part is the output."""
    weights = (params["w_ih"], params["w_hh"], params["b_ih"], params["b_hh"])
    if weights[0].dim() == 2:
        flat = [part.reshape(-1, part.shape[-1]) for part in (x, *state)]
        after = (
            (torch.gru_cell(flat[0], flat[1], *weights),)
            if kind == "gru"
            else torch.lstm_cell(flat[0], flat[1:], *weights)
        )
        return tuple(part.view(*x.shape[:-1], -1) for part in after)
    from_input, from_memory = (
        affine(x, weights[0], weights[2]),
        affine(state[0], weights[1], weights[3]),
    )
    if kind == "gru":
        in_r, in_z, in_n = from_input.chunk(3, -1)
        mem_r, mem_z, mem_n = from_memory.chunk(3, -1)
        candidate = torch.tanh(in_n + torch.sigmoid(in_r + mem_r) * mem_n)
        return (torch.lerp(candidate, state[0], torch.sigmoid(in_z + mem_z)),)
    enter, forget, candidate, leave = (from_input + from_memory).chunk(4, -1)
    cell = torch.sigmoid(forget) * state[1] + torch.sigmoid(enter) * torch.tanh(candidate)
    return torch.sigmoid(leave) * torch.tanh(cell), cell


def unroll(kind: MemoryKind, params: Params, x: Tensor, state: tuple[Tensor, ...]) -> Tensor:
    """A whole sequence: x [T, N, M, I] from state [N, M, D] → outputs [T, N, M, D].

    Same numbers as T calls of `step`. With shared parameters it is fast and has first-order gradients; with one copy a
    task it is the loop of steps, with gradients of every order.
    """
    weights = (params["w_ih"], params["w_hh"], params["b_ih"], params["b_hh"])
    if weights[0].dim() != 2:
        outputs = []
        for x_t in x.unbind(0):
            state = step(kind, params, x_t, state)
            outputs.append(state[0])
        return torch.stack(outputs)
    sequence = x.reshape(x.shape[0], -1, x.shape[-1])
    flat = [part.reshape(1, -1, part.shape[-1]) for part in state]
    if kind == "lstm":
        output = torch.lstm(sequence, flat, list(weights), True, 1, 0.0, False, False, False)[0]
    elif x.is_cuda:
        output = torch.gru(sequence, flat[0], list(weights), True, 1, 0.0, False, False, False)[0]
    else:
        output = _GRUSequence.apply(sequence, flat[0][0], *weights)  # type: ignore[no-untyped-call]
    return output.view(*x.shape[:-1], -1)


class _GRUSequence(torch.autograd.Function):
    """``(x [T, B, I], h₀ [B, D], w_ih, w_hh, b_ih, b_hh) → h [T, B, D]`` with back-propagation through time by hand.

    Fast on CPU cores, where the library's version is bound by memory traffic: the input products of all T steps are one
    product; every local derivative is formed in place, and a block of steps adds its share of the weights' gradients
    while it is still in the cache.

        r = σ(W_r x + U_r h + b_r)      z = σ(W_z x + U_z h + b_z)      q = U_n h + c_n
        n = tanh(W_n x + b_n + r ⊙ q)   h′ = (1 − z) ⊙ n + z ⊙ h
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, h: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor, b_hh: Tensor
    ) -> Tensor:
        steps, batch, width = x.shape[0], x.shape[1], h.shape[1]
        flat, two = x.reshape(steps * batch, -1), 2 * width
        rz = torch.addmm(b_ih[:two] + b_hh[:two], flat, w_ih[:two].t()).view(steps, batch, two)
        n = torch.addmm(b_ih[two:], flat, w_ih[two:].t()).view(steps, batch, width)
        q, hs = torch.empty_like(n), x.new_empty(steps + 1, batch, width)
        hs[0] = h
        u_rz, u_n, c_n = w_hh[:two].t().contiguous(), w_hh[two:].t().contiguous(), b_hh[two:]
        r, z = rz.split(width, dim=2)
        decision_processes = [part.unbind(0) for part in (rz, r, z, n, q, hs[:-1], hs[1:])]
        for rz_t, r_t, z_t, n_t, q_t, h_t, h_next in zip(*decision_processes, strict=True):
            rz_t.addmm_(h_t, u_rz).sigmoid_()
            torch.addmm(c_n, h_t, u_n, out=q_t)
            n_t.addcmul_(r_t, q_t).tanh_()
            torch.lerp(n_t, h_t, z_t, out=h_next)
        ctx.save_for_backward(x, w_ih, w_hh, rz, n, q, hs)
        return hs[1:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        x, w_ih, w_hh, rz, n, q, hs = ctx.saved_tensors
        (steps, batch, width), two = n.shape, 2 * n.shape[2]
        dw_ih, dw_hh = torch.zeros_like(w_ih), torch.zeros_like(w_hh)
        db_hh, db_n = w_hh.new_zeros(3 * width), w_hh.new_zeros(width)
        dx = torch.empty_like(x) if ctx.needs_input_grad[0] else None
        block = min(steps, max(1, _BLOCK_ROWS // batch))
        d_gates, d_n = (
            x.new_empty(block, batch, 3 * width),
            x.new_empty(block, batch, width),
        )  # of r, z, q; of n
        slots = list(
            zip(d_gates, *(d.unbind(0) for d in d_gates.split(width, dim=2)), d_n, strict=True)
        )
        sequence = list(
            zip(
                grad_out,
                hs[:-1],
                *(gate.unbind(0) for gate in rz.split(width, dim=2)),
                n,
                q,
                strict=True,
            )
        )
        g, scratch = (
            torch.zeros_like(hs[0]),
            torch.empty_like(hs[0]),
        )  # g = dL/dh′ of the step at hand

        for stop in range(steps, 0, -block):
            first = max(0, stop - block)
            for t in range(stop - 1, first - 1, -1):
                dh_t, h_t, r_t, z_t, n_t, q_t = sequence[t]
                d_gates_t, d_r, d_z, d_q, d_n_t = slots[t - first]
                g.add_(dh_t)
                torch.sub(h_t, n_t, out=scratch).mul_(g)
                _sigmoid_backward(scratch, z_t, grad_input=d_z)
                torch.mul(g, z_t, out=scratch)  # what reaches h past the gates
                g.sub_(scratch)
                _tanh_backward(g, n_t, grad_input=d_n_t)
                torch.mul(d_n_t, r_t, out=d_q)
                torch.mul(d_n_t, q_t, out=g)
                _sigmoid_backward(g, r_t, grad_input=d_r)
                torch.addmm(scratch, d_gates_t, w_hh, out=g)
            rows = (stop - first) * batch
            gates, of_n = d_gates[: stop - first].view(rows, -1), d_n[: stop - first].view(rows, -1)
            flat = x[first:stop].reshape(rows, -1)
            dw_hh.addmm_(gates.t(), hs[first:stop].view(rows, -1))
            db_hh.add_(gates.sum(0))
            dw_ih[:two].addmm_(gates[:, :two].t(), flat)
            dw_ih[two:].addmm_(of_n.t(), flat)
            db_n.add_(of_n.sum(0))
            if dx is not None:
                part = torch.addmm(of_n @ w_ih[two:], gates[:, :two], w_ih[:two])
                dx[first:stop] = part.view(stop - first, batch, -1)
        return dx, g, dw_ih, dw_hh, torch.cat([db_hh[:two], db_n]), db_hh
