"""Executors: the choices of `auto` and its log lines, and the account of compiled jobs."""

import jax
import numpy as np
import pytest

from evonorms_jax.evolution import executors
from evonorms_jax.evolution.devices import Devices
from evonorms_jax.evolution.executors import Auto, Job, Shared, TrainedCandidate
from evonorms_jax.evolution.proxy import ProxyState
from evonorms_jax.search_space import CATALOG


def state(step):
    return ProxyState({}, {}, {}, np.int32(step), np.float32(0))


def job(stop, start=10, step_seconds=1.0):
    return Job(CATALOG["evonorm_s0"], stop, state(start), step_seconds)


class Fake:
    """An executor whose steps take so many seconds. From a loss of NaN it takes no step."""

    def __init__(self, step_seconds, build=0.0, nan=False):
        self.step_seconds, self.build, self.nan, self.calls = step_seconds, build, nan, []

    def train(self, jobs):
        self.calls.append([job.steps for job in jobs])
        return [self._trained(job) for job in jobs]

    def _trained(self, job):
        end = job.start if self.nan else job.stop
        seconds = self.build + (end - job.start) * self.step_seconds
        return TrainedCandidate(0.5, 0.0, end, lambda: state(end), seconds, self.build)


class Universal(Fake):
    pass


class Compiled(Fake):
    pass


def said(caplog):
    return [record.getMessage() for record in caplog.records if record.name == "absl"]


def test_the_first_job_is_compiled_to_measure_and_later_ones_go_where_they_take_less_time(caplog):
    universal, compiled = Universal(1.0), Compiled(0.25, build=30.0)
    auto = Auto(universal, compiled, "tiny")
    with caplog.at_level("INFO", "absl"):
        for stop in (20, 30, 110):
            auto.train([job(stop)])
    assert (compiled.calls, universal.calls) == ([[10], [100]], [[20]])
    assert said(caplog) == [
        "tiny, 10 steps: compiled, to measure it; universal 10.0 s",
        "tiny, 20 steps: universal; universal 20.0 s, compiled 35.0 s (a build of 30.0 s, steps of 0.25 the "
        "time)",
        "tiny, 100 steps: compiled; universal 100.0 s, compiled 55.0 s (a build of 30.0 s, steps of 0.25 the "
        "time)",
    ]


def test_candidates_that_take_no_step_measure_nothing(caplog):
    compiled = Compiled(0.25, build=30.0, nan=True)
    auto = Auto(Universal(1.0), compiled, "tiny")
    with caplog.at_level("INFO", "absl"):
        for _ in range(2):
            auto.train([job(20)])
    assert said(caplog) == 2 * ["tiny, 10 steps: compiled, to measure it; universal 10.0 s"]
    compiled.nan = False
    auto.train([job(20)])
    auto.train([job(20)])
    assert compiled.calls == 3 * [[10]], "measured now: a build of 30 s is not worth it"


def test_jobs_without_a_measured_step_are_interpreted():
    universal, compiled = Universal(1.0), Compiled(0.25)
    Auto(universal, compiled, "tiny").train([job(20, step_seconds=0.0)])
    assert (universal.calls, compiled.calls) == ([[10]], [])


def test_idle_time_of_compiled_jobs_is_counted(monkeypatch):
    """One job on two devices: one of them waits."""
    devices = Devices(1, jax.local_devices()[:2])
    shared = Shared({}, devices.replicate(jax.random.key(0)), devices.replicate(state(0)))
    compiled = executors.Compiled(None, shared, devices)
    seconds = dict(zip(devices.devices, (4.0, 1.0), strict=True))
    monkeypatch.setattr(
        compiled,
        "_train_on",
        lambda device, _: TrainedCandidate(0.5, 0.0, 20, lambda: state(20), seconds[device]),
    )
    assert not devices.used
    compiled.train([job(20)])
    assert devices.used and devices.idle_share == pytest.approx(0.5)
