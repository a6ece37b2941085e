"""A checkpoint is whole or it is not there; a crash, a full disk or a flipped bit costs the one and
no more."""

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from torch import nn

from flowbrush import checkpoint
from flowbrush.errors import UserError
from flowbrush.experiment import TrainConfig
from flowbrush.train.optimizer import build_optimizer, moments

FILES = ["model.safetensors", "optimizer.safetensors", "progress.json", "manifest.json"]
PLAIN = {
    "pictures": 640,
    "lr": 0.1 + 0.2,
    "tiny": 5e-324,
    "wandb": None,
    "names": ["猫", "cat"],
    "nested": {"flip": True},
}


def states(pictures: int) -> dict[str, dict[str, Any]]:
    """A model, its moments after one step, and the progress; no two `pictures` have the same."""
    model = nn.Linear(3, 2)
    nn.init.constant_(model.weight, 1 / pictures)
    optimizer = build_optimizer(model, TrainConfig())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return {
        "model": model.state_dict(),
        "optimizer": moments(model, optimizer),
        "progress": {"pictures": pictures},
    }


def saved(folder: Path, *pictures: int, keep: int = 9) -> list[Path]:
    return [checkpoint.save(folder, p, states(p), keep) for p in pictures]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below `folder`."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def assert_same_bits(one: Any, other: Any) -> None:
    assert type(one) is type(other)
    if isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype
        assert one.shape == other.shape
        bits = [tensor.reshape(-1, 1).view(torch.uint8) for tensor in (one, other)]
        assert torch.equal(*bits)
    elif isinstance(one, dict):
        assert list(one) == list(other)
        for key in one:
            assert_same_bits(one[key], other[key])
    elif isinstance(one, list | tuple):
        for mine, others in zip(one, other, strict=True):
            assert_same_bits(mine, others)
    else:
        assert one == other


def refuse(*_: Any) -> None:
    """A `say` for where nothing is to be said."""
    raise AssertionError("a whole checkpoint was called damaged")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool])
def test_tensors_come_back_to_the_bit(tmp_path, dtype):
    state = {"weight": torch.randn(5, 4).to(dtype), "empty": torch.zeros(0, 3, dtype=dtype)}
    found = checkpoint.save(tmp_path, 1, {"model": state}, keep=1)
    loaded = checkpoint.load(found, "model")
    assert_same_bits({name: loaded[name] for name in state}, state)


def test_tensors_that_are_not_contiguous_come_back_to_the_bit(tmp_path):
    weight = torch.randn(5, 4).T
    found = checkpoint.save(tmp_path, 1, {"model": {"weight": weight}}, keep=1)
    assert_same_bits(checkpoint.load(found, "model")["weight"], weight)


def test_numbers_that_are_not_finite_come_back_to_the_bit(tmp_path):
    weight = torch.tensor([float("nan"), float("inf"), -float("inf"), -0.0])
    found = checkpoint.save(tmp_path, 1, {"model": {"weight": weight}}, keep=1)
    assert_same_bits(checkpoint.load(found, "model")["weight"], weight)


def test_an_optimizer_comes_back_to_the_bit(tmp_path):
    found = saved(tmp_path, 7)[0]
    loaded, given = checkpoint.load(found, "optimizer"), states(7)["optimizer"]
    assert_same_bits(dict(sorted(loaded.items())), dict(sorted(given.items())))


def test_plain_values_come_back_as_they_were(tmp_path):
    found = checkpoint.save(tmp_path, 1, {"progress": PLAIN}, keep=1)
    assert_same_bits(checkpoint.load(found, "progress"), PLAIN)


def test_each_state_lies_in_a_file_of_its_kind(tmp_path):
    assert sorted(contents(saved(tmp_path, 7)[0])) == sorted(FILES)


def test_a_state_that_is_not_there_is_refused_with_those_that_are(tmp_path):
    with pytest.raises(UserError, match=r"'ema_0.9'.*model, optimizer, progress"):
        checkpoint.load(saved(tmp_path, 7)[0], "ema_0.9")


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_only_the_newest_are_kept(tmp_path, keep):
    found = saved(tmp_path, 8, 64, 100, 1000, 10_000, keep=keep)
    assert sorted(tmp_path.iterdir()) == found[-keep:]


def test_the_newest_is_the_one_with_the_most_pictures(tmp_path):
    written = saved(tmp_path, 64, 900, 1000)
    assert checkpoint.newest(tmp_path, refuse) == written[2]


def test_a_save_never_deletes_what_it_has_just_written(tmp_path):
    (tmp_path / "000000000200").mkdir()  # a newer one, damaged
    assert saved(tmp_path, 100, keep=1)[0].is_dir()


def test_saving_the_same_step_again_replaces_it(tmp_path):
    saved(tmp_path, 7)
    checkpoint.save(tmp_path, 7, {"progress": {"pictures": 8}}, keep=2)
    assert checkpoint.load(checkpoint.newest(tmp_path, refuse), "progress") == {"pictures": 8}


@pytest.mark.parametrize("place", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("name", FILES)
def test_one_flipped_byte_in_any_file_is_noticed(tmp_path, name, place):
    before, damaged = saved(tmp_path, 7, 8)
    content = bytearray((damaged / name).read_bytes())
    content[int(place * (len(content) - 1))] ^= 0xFF
    (damaged / name).write_bytes(content)
    assert_falls_back(tmp_path, before, damaged)


@pytest.mark.parametrize("share", [0.0, 0.5])
@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file_is_noticed(tmp_path, name, share):
    before, damaged = saved(tmp_path, 7, 8)
    content = (damaged / name).read_bytes()
    (damaged / name).write_bytes(content[: int(share * len(content))])
    assert_falls_back(tmp_path, before, damaged)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_noticed(tmp_path, name):
    before, damaged = saved(tmp_path, 7, 8)
    (damaged / name).unlink()
    assert_falls_back(tmp_path, before, damaged)


def assert_falls_back(folder: Path, before: Path, damaged: Path) -> None:
    said: list[str] = []
    assert checkpoint.newest(folder, said.append) == before
    assert len(said) == 1
    assert said[0].startswith(f"{damaged}: damaged")


def test_where_every_checkpoint_is_damaged_the_user_is_told(tmp_path):
    for written in saved(tmp_path, 7, 8):
        (written / "manifest.json").unlink()
    said: list[str] = []
    with pytest.raises(UserError, match="no whole checkpoint"):
        checkpoint.newest(tmp_path, said.append)
    assert len(said) == 2


@pytest.mark.parametrize("name", ["", "never_made"])
def test_where_there_is_no_checkpoint_the_user_is_told(tmp_path, name):
    assert not checkpoint.exists(tmp_path / name)
    with pytest.raises(UserError, match="no whole checkpoint"):
        checkpoint.newest(tmp_path / name, refuse)


def test_a_damaged_checkpoint_still_counts_as_one(tmp_path):
    (saved(tmp_path, 7)[0] / "manifest.json").unlink()
    assert checkpoint.exists(tmp_path)


def killed_at(folder: Path, pictures: int) -> Path:
    """What a kill in the middle of a save leaves behind."""
    aside = folder / f".aside-{pictures:012d}"
    aside.mkdir()
    (aside / "model.safetensors").write_bytes(b"half of i")
    return aside


def test_what_a_kill_left_behind_is_no_checkpoint(tmp_path):
    killed_at(tmp_path, 8)
    assert not checkpoint.exists(tmp_path)


def test_what_a_kill_left_behind_does_not_hide_the_one_before(tmp_path):
    before = saved(tmp_path, 7)[0]
    killed_at(tmp_path, 8)
    assert checkpoint.newest(tmp_path, refuse) == before


@pytest.mark.parametrize("pictures", [8, 9])
def test_the_next_save_clears_what_a_kill_left_behind(tmp_path, pictures):
    aside = killed_at(tmp_path, 8)
    saved(tmp_path, pictures)
    assert not aside.exists()


def full(error: Exception) -> Callable[..., None]:
    """A writer that gives up in the middle of a file."""

    def write(_: Any, path: Path) -> None:
        Path(path).write_bytes(b"half of i")
        raise error

    return write


FULL_DISKS = [
    OSError(errno.ENOSPC, "No space left on device"),
    OSError(errno.EDQUOT, "Disk quota exceeded"),
    SafetensorError("I/O error: No space left on device (os error 28)"),
]


@pytest.mark.parametrize("error", FULL_DISKS, ids=lambda error: type(error).__name__)
def test_on_a_full_disk_nothing_is_half_written_and_nothing_lost(tmp_path, monkeypatch, error):
    saved(tmp_path, 6, 7)
    before = contents(tmp_path)
    monkeypatch.setattr(checkpoint, "save_file", full(error))
    with pytest.raises(UserError, match="no space left on the disk"):
        saved(tmp_path, 8, keep=1)
    assert contents(tmp_path) == before
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("name", FILES[2:])  # safetensors replaces what is there
def test_a_disk_can_be_full_at_any_file(tmp_path, monkeypatch, name):
    real_mkdir = Path.mkdir

    def mkdir(path: Path, *args: Any, **kwargs: Any) -> None:
        real_mkdir(path, *args, **kwargs)
        (path / name).symlink_to("/dev/full")

    monkeypatch.setattr(Path, "mkdir", mkdir)
    with pytest.raises(UserError, match="no space left on the disk"):
        saved(tmp_path, 8)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_can_be_too_full_for_a_folder(tmp_path, monkeypatch):
    def mkdir(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "mkdir", mkdir)
    with pytest.raises(UserError, match="no space left on the disk"):
        saved(tmp_path, 8)


def test_another_error_of_the_disk_is_passed_on(tmp_path, monkeypatch):
    before = contents(tmp_path)
    monkeypatch.setattr(checkpoint, "save_file", full(PermissionError(errno.EACCES, "denied")))
    with pytest.raises(PermissionError):
        saved(tmp_path, 8)
    assert contents(tmp_path) == before


class Trap:
    """Unpickling one makes a folder."""

    def __init__(self, made: Path) -> None:
        self.made = made

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.mkdir, (self.made,)


@pytest.mark.parametrize("name", ["optimizer.pt", "optimizer.safetensors"])
def test_loading_executes_no_code_from_a_pickle(tmp_path, name):
    trap, found = Trap(tmp_path / "sprung"), saved(tmp_path / "checkpoints", 7)[0]
    for file in found.glob("optimizer.*"):
        file.unlink()
    torch.save({"state": trap}, found / name)
    assert (found / name).stat().st_size
    digests = {path.name: checkpoint.sha256(path) for path in found.glob("[mop]*.[sp]*")}
    (found / "manifest.json").write_text(json.dumps(digests))
    with pytest.raises((UserError, SafetensorError)):
        checkpoint.load(checkpoint.newest(found.parent, refuse), "optimizer")
    assert not trap.made.exists()


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_network_is_not_filled_with_weights_that_are_not_finite(
    number: float, tmp_path: Path
) -> None:
    spoilt = {"good": torch.ones(3), "bad": torch.tensor([0.0, number])}
    found = checkpoint.save(tmp_path, 0, {"model": spoilt}, keep=1)
    with pytest.raises(UserError, match=f"{found}: model: bad holds NaN or infinity"):
        checkpoint.fill(found, "model", {k: torch.zeros_like(v) for k, v in spoilt.items()}, "")
