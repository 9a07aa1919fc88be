"""What a step reports of one lane and of many, in Gymnasium's form."""

import numpy as np

from metarl.adapters.task_observation import Array, Info, Observation, TaskObservation, flat
from metarl.core.types import Step


def lane_obs(obs: Observation, lane: int) -> Observation:
    """One lane's observation as an array of its own."""
    if isinstance(obs, dict):
        return {name: part[lane].copy() for name, part in obs.items()}
    return obs[lane].copy()


def lane_info(infos: Info, lane: int) -> Info:
    """What the infos of a step report of one lane."""
    if "final_info" in infos and infos["_final_info"][lane]:
        infos = infos["final_info"]
    masked = {name for name in infos if f"_{name}" in infos}
    return {name: infos[name][lane].item() for name in masked - {"final_obs", "final_info"}}


def lanes_infos(step: Step, lanes: Array) -> Info:
    """What a step reports of some `lanes`, in Gymnasium's form: arrays [N · M], and their masks."""
    infos: Info = {}
    reported = {"is_success": step.success, "training_reward": step.training_reward, **step.metrics}
    for name, values in reported.items():
        if values is not None and lanes.any():
            wide = values.double() if values.is_floating_point() else values
            infos[name] = flat(wide) * lanes
            infos[f"_{name}"] = lanes.copy()
    return infos


def final_infos(step: Step, done: Array, shown: TaskObservation) -> Info:
    """What lanes `done` [N · M] came to, where a step's obs is that of the next episode."""
    if not done.any():
        return {}
    next_obs = shown.observation(step.next_obs)
    final_obs = np.full(len(done), None, dtype=object)
    for lane in np.flatnonzero(done).tolist():
        final_obs[lane] = lane_obs(next_obs, lane)
    infos: Info = {"final_obs": final_obs, "final_info": lanes_infos(step, done)}
    return infos | {"_final_obs": done.copy(), "_final_info": done.copy()}
