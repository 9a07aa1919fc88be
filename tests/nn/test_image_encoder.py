"""Convolutions on images, beside torch's modules and one task at a time."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from metarl.core.rng import Rng
from metarl.core.types import Inputs, Spec, tree_map
from metarl.nn.config import ImageConfig
from metarl.nn.image_encoder import ImageEncoder, make_image_encoder
from metarl.nn.memory import make_memory
from metarl.nn.policy import Policy

HEIGHT, WIDTH = 9, 14
SPEC = Spec(
    "seen",
    {"front": HEIGHT * WIDTH * 3, "side": 2, "back": 4 * 4},
    action_width=3,
    discrete=True,
    horizon=6,
    task_width=1,
    images={"front": (HEIGHT, WIDTH, 3), "back": (4, 4, 1)},
    obs_dtype="uint8",
)


def encoder(**options: object) -> ImageEncoder:
    made = make_image_encoder(ImageConfig(**options), SPEC)
    assert made is not None
    return made


def pixels(*size: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (*size, SPEC.obs_width), generator=generator, dtype=torch.uint8)


def by_modules(params: dict[str, Tensor], name: str, image: Tensor) -> Tensor:
    """image [B, height, width, channels] in the range 0 to 1."""
    layers: list[nn.Module] = []
    for i in range(2):
        weight = params[f"{name}.{i}.weight"]
        conv = nn.Conv2d(weight.shape[1], weight.shape[0], 3, stride=2, padding=1)
        conv.load_state_dict({"weight": weight, "bias": params[f"{name}.{i}.bias"]})
        layers += [conv, nn.ReLU()]
    head = nn.Linear(params[f"{name}.head.weight"].shape[1], 5)
    head.load_state_dict({k: params[f"{name}.head.{k}"] for k in ("weight", "bias")})
    return nn.Sequential(*layers, nn.Flatten(), head, nn.ReLU())(image.permute(0, 3, 1, 2))


def test_features_are_those_of_torchs_modules():
    """Other parts come first, as they are."""
    own = encoder(conv_channels=(4, 6), image_features=5)
    params = own.init(Rng(0).generator())
    obs = pixels(7)
    front, side, back = obs.float().split([*SPEC.observation.values()], -1)
    expected = [
        side,
        by_modules(params, "front", front.view(7, HEIGHT, WIDTH, 3) / 255),
        by_modules(params, "back", back.view(7, 4, 4, 1) / 255),
    ]
    found = own(params, obs)
    assert found.shape[-1] == own.width
    torch.testing.assert_close(found, torch.cat(expected, -1))
    torch.testing.assert_close(own(params, obs.float()), found)
    assert own.place("side") == slice(0, 2)


def test_without_convolutions_features_are_the_pixels():
    own = encoder(conv_channels=())
    front, side, back = pixels(2).float().split([*SPEC.observation.values()], -1)
    expected = torch.cat([side, front / 255, back / 255], -1)
    torch.testing.assert_close(own({}, pixels(2)), expected)
    assert own.width == expected.shape[-1]


def test_a_task_of_its_own_parameters_sees_by_them_alone():
    own = encoder(conv_channels=(4,), image_features=3)
    each = [own.init(Rng(i).generator()) for i in range(3)]
    params = tree_map(lambda *x: torch.stack(x), *each)
    obs = pixels(5, 3, 2)  # [T, N, M, O]
    alone = torch.stack([own(each[i], obs[:, i]) for i in range(3)], dim=1)
    torch.testing.assert_close(own(params, obs), alone)
    torch.testing.assert_close(own(params, obs[0]), alone[0])


@pytest.mark.parametrize("memory", ["gru", "transformer", "none"])
def test_a_policy_steps_as_it_unrolls(memory: str):
    from metarl.agents.rl2.config import RL2Config

    config = RL2Config(memory=memory, conv_channels=(4,), image_features=6, memory_width=8)
    images = make_image_encoder(config, SPEC)
    policy = Policy.for_spec(
        SPEC, images, cue=True, memory=make_memory(config, SPEC, images), memory_width=8
    )
    params = policy.init(Rng(0).generator())
    cue = torch.rand(6, 3, 2, SPEC.cue_width)
    inputs = Inputs(pixels(6, 3, 2), cue=cue)
    whole = policy.unroll(params, inputs, policy.start(3, 2, torch.device("cpu")))
    state = policy.start(3, 2, torch.device("cpu"))
    for t, (obs, outcome) in enumerate(zip(inputs.obs, cue, strict=True)):
        now, state = policy.step(params, Inputs(obs, cue=outcome), state)
        torch.testing.assert_close(now.value, whole.value[t])
        torch.testing.assert_close(now.heads["action"], whole.heads["action"][t])
