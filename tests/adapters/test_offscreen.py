"""OpenGL where there may be no screen."""

from __future__ import annotations

import os

import pytest

from metarl.adapters import mujoco, offscreen
from metarl.core.errors import FamilyError


@pytest.mark.parametrize(
    ("platform", "environment", "back_end"),
    [
        ("linux", {}, "egl"),
        ("linux", {"DISPLAY": ""}, "egl"),
        ("linux", {"DISPLAY": ":0"}, "glfw"),
        ("darwin", {}, "glfw"),
        ("linux", {"MUJOCO_GL": "osmesa", "DISPLAY": ":0"}, "osmesa"),
    ],
)
def test_mujoco_draws_with_what_is_there(
    platform: str, environment: dict[str, str], back_end: str, monkeypatch: pytest.MonkeyPatch
):
    for name in ("MUJOCO_GL", "DISPLAY"):
        monkeypatch.setenv(name, environment.get(name, ""))
    monkeypatch.setattr(offscreen.sys, "platform", platform)
    with offscreen.offscreen() as chosen:
        assert chosen == os.environ["MUJOCO_GL"] == back_end


def test_what_cannot_be_drawn_names_the_cause_and_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MUJOCO_GL", "egl")
    with (
        pytest.raises(FamilyError, match=r"no picture.*OSError: no EGL.*MUJOCO_GL=egl.*libegl1"),
        offscreen.offscreen(),
    ):
        raise OSError("no EGL")


def test_cores_are_counted_everywhere(monkeypatch: pytest.MonkeyPatch):
    assert 1 <= mujoco._available_cores() <= os.cpu_count()
    monkeypatch.delattr(os, "sched_getaffinity")
    assert mujoco._available_cores() == os.cpu_count()
