"""A run's precision and threads are chosen once and kept."""

import json

import pytest
import torch

from flowbrush import compute
from flowbrush.compute import Compute, choose_compute, dtype_of, load_compute, record_compute
from flowbrush.errors import UserError
from flowbrush.processes import Processes

CPU = Processes(torch.device("cpu"))


class Clock:
    """A trial whose steps take so many seconds an image, by a clock of its own."""

    def __init__(self, fp32: float, bf16: float) -> None:
        self.now, self.images = 0.0, []
        self._seconds = {torch.float32: fp32, torch.bfloat16: bf16}

    def __call__(self) -> float:
        return self.now

    def step(self, dtype: torch.dtype, images: int) -> None:
        self.images.append(images)
        self.now += self._seconds[dtype] * images


@pytest.fixture
def machine(monkeypatch):
    """A function: a CPU with bf16 instructions, idle, on which steps take so long."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    monkeypatch.setattr(compute, "free_cores", lambda: 64)
    threads = torch.get_num_threads()

    def of(fp32: float = 1.0, bf16: float = 1.0) -> Clock:
        clock = Clock(fp32, bf16)
        monkeypatch.setattr(compute, "CLOCK", clock)
        return clock

    yield of
    torch.set_num_threads(threads)


def chosen(run, clock, precision="auto", resumes=False, most=8) -> Compute:
    return choose_compute(run, precision, CPU, resumes, clock.step, most)


@pytest.mark.parametrize(
    ("fp32", "bf16", "precision"), [(2.0, 1.0, "bf16"), (1.0, 2.0, "fp32"), (1.02, 1.0, "fp32")]
)
def test_auto_takes_bf16_where_a_step_of_the_network_is_faster(
    machine, tmp_path, fp32, bf16, precision
):
    assert chosen(tmp_path, machine(fp32, bf16)).precision == precision


def test_a_cpu_without_bf16_instructions_is_not_measured(machine, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    clock = machine(2.0, 1.0)
    assert chosen(tmp_path, clock).precision == "fp32"
    assert clock.images == []


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_an_explicit_precision_is_not_measured(machine, tmp_path, precision):
    clock = machine(2.0, 1.0)
    assert chosen(tmp_path, clock, precision).precision == precision
    assert clock.images == []


def test_the_trial_grows_until_a_step_is_long_enough_or_the_batch_is_whole(machine, tmp_path):
    clock = machine(0.06, 0.06)
    chosen(tmp_path, clock, most=100)
    assert clock.images == [1, 1, 2, 2, 4, 4] + 6 * [4]
    clock = machine(1e-6, 1e-6)
    chosen(tmp_path, clock, most=3)
    assert clock.images == [1, 1, 2, 2, 3, 3] + 6 * [3]


def test_the_trial_draws_no_random_numbers_of_the_runs(machine, tmp_path):
    clock = machine()
    before = torch.random.get_rng_state()

    def trial(dtype: torch.dtype, images: int) -> None:
        torch.randn(images)
        clock.step(dtype, images)

    choose_compute(tmp_path, "auto", CPU, False, trial, 8)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_resumed_run_keeps_what_it_has_recorded_on_another_day(machine, tmp_path):
    record_compute(tmp_path, chosen(tmp_path, machine(2.0, 1.0)))
    slow_in_bf16 = machine(1.0, 2.0)
    again = chosen(tmp_path, slow_in_bf16, resumes=True)
    assert again == load_compute(tmp_path)
    assert again.precision == "bf16"
    assert slow_in_bf16.images == []


def test_threads_are_those_of_the_cores_that_are_free_at_the_first_start(
    machine, tmp_path, monkeypatch
):
    torch.set_num_threads(2)
    monkeypatch.setattr(compute, "usable_cores", lambda: 2)
    monkeypatch.setattr(compute, "free_cores", lambda: 1)
    record_compute(tmp_path, chosen(tmp_path, machine()))
    assert torch.get_num_threads() == 1
    torch.set_num_threads(2)
    monkeypatch.setattr(compute, "free_cores", lambda: 2)
    assert chosen(tmp_path, machine(), resumes=True).threads == 1
    assert torch.get_num_threads() == 1


def test_the_users_own_number_of_threads_wins(machine, tmp_path, monkeypatch):
    torch.set_num_threads(2)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setattr(compute, "free_cores", lambda: 1)
    assert chosen(tmp_path, machine()).threads == 2


def test_a_run_without_a_record_resumes_as_it_computed_before(machine, tmp_path, monkeypatch):
    torch.set_num_threads(2)
    monkeypatch.setattr(compute, "free_cores", lambda: 1)
    found = chosen(tmp_path, machine(1.0, 2.0), resumes=True)
    assert found == Compute("cpu", "bf16", 2)


def test_an_explicit_precision_wins_over_the_record(machine, tmp_path):
    record_compute(tmp_path, Compute("cpu", "bf16", 1))
    assert chosen(tmp_path, machine(), "fp32", resumes=True).precision == "fp32"


def test_a_record_of_another_kind_of_device_does_not_count(machine, tmp_path):
    record_compute(tmp_path, Compute("cuda", "bf16", 1))
    assert chosen(tmp_path, machine(1.0, 2.0)).precision == "fp32"


def test_samples_are_computed_as_the_run_was_trained(machine, tmp_path):
    cpu = torch.device("cpu")
    assert dtype_of(tmp_path, "auto", cpu) == torch.bfloat16
    record_compute(tmp_path, Compute("cpu", "fp32", 1))
    assert dtype_of(tmp_path, "auto", cpu) == torch.float32
    assert dtype_of(tmp_path, "bf16", cpu) == torch.bfloat16


@pytest.mark.parametrize("text", ["", "{}", '{"device": "cpu", "precision": "fp8", "threads": 1}'])
def test_a_damaged_record_is_refused_by_its_name(tmp_path, text):
    (tmp_path / "compute.json").write_text(text)
    with pytest.raises(UserError, match=r"compute\.json: damaged"):
        load_compute(tmp_path)


def test_the_record_is_plain_json(tmp_path):
    record_compute(tmp_path, Compute("cpu", "bf16", 2))
    found = json.loads((tmp_path / "compute.json").read_text())
    assert found == {"device": "cpu", "precision": "bf16", "threads": 2}
