"""The journal, the rejects and the run's folder."""

import errno
import json
import random
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import tiny

from flowbrush.data import PreparedConfig, ShapesWorldConfig
from flowbrush.data.batches import Batch
from flowbrush.data.shapes_world import ShapesWorld
from flowbrush.data.source import Example, IncompleteExample, UnreadablePicture
from flowbrush.data.split import split
from flowbrush.errors import UserError
from flowbrush.evaluate.record import recorded
from flowbrush.evaluate.watched import Watched
from flowbrush.experiment import EvaluateConfig
from flowbrush.processes import Processes
from flowbrush.train.journal import Journal, wandb_id
from flowbrush.train.loop import train
from flowbrush.train.rejects import Rejects
from flowbrush.train.run_folder import opened

CPU = Processes(torch.device("cpu"))


def batch(*broken: str) -> Batch:
    errors = [UnreadablePicture(name, "truncated") for name in broken]
    return Batch(torch.zeros(8, 3, 2, 2, dtype=torch.uint8), ["a"] * 8, list(range(8)), errors)


def test_a_line_holds_the_means_since_the_line_before(tmp_path: Path) -> None:
    with Journal(tmp_path, tiny(), seen=0) as journal:
        for loss in (1.0, 3.0):
            journal.add(torch.tensor(loss), torch.tensor(0.5), torch.tensor(0.0))
        journal.write(seen=16, lr=0.1)
    line = json.loads((tmp_path / "journal.jsonl").read_text())
    assert (line["pictures"], line["loss"], line["gradient_norm"], line["lr"]) == (
        16,
        2.0,
        0.5,
        0.1,
    )


def test_lines_after_the_checkpoint_and_half_lines_are_taken_out(tmp_path: Path) -> None:
    kept = '{"pictures": 16, "loss": 1.0}\n'
    (tmp_path / "journal.jsonl").write_text(kept + '{"pictures": 32, "loss": 1.0}\n{"pictu')
    with Journal(tmp_path, tiny(), seen=16):
        assert (tmp_path / "journal.jsonl").read_text() == kept


def test_steps_that_were_skipped_are_counted_and_are_in_no_mean(tmp_path: Path) -> None:
    nan, taken, skipped = torch.tensor(float("nan")), torch.tensor(0.0), torch.tensor(1.0)
    with Journal(tmp_path, tiny(), seen=0) as journal:
        journal.add(nan, nan, skipped)
        journal.write(seen=8, lr=0.1)  # there is no loss to write
        journal.add(torch.tensor(3.0), torch.tensor(1.0), taken)
        journal.add(nan, nan, skipped)
        journal.write(seen=24, lr=0.1)
    line = json.loads((tmp_path / "journal.jsonl").read_text())
    assert (line["pictures"], line["loss"], line["skipped"]) == (24, 3.0, 2)


def test_tensorboard_gets_the_numbers_and_the_pictures(tmp_path: Path) -> None:
    config = replace(tiny(), watch=replace(tiny().watch, tensorboard=True))
    with Journal(tmp_path, config, seen=0) as journal:
        journal.add(torch.tensor(1.0), torch.tensor(1.0), torch.tensor(0.0))
        journal.write(seen=8, lr=0.1)
        journal.show(Image.new("RGB", (4, 4)), 8)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert events.Scalars("loss")[0].value == 1.0
    assert len(events.Images("preview")) == 1


def test_wandb_runs_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    config = replace(tiny(), watch=replace(tiny().watch, wandb="flowbrush"))
    with Journal(tmp_path, config, seen=0) as journal:
        journal.add(torch.tensor(1.0), torch.tensor(1.0), torch.tensor(0.0))
        journal.write(seen=8, lr=0.1)
        journal.show(Image.fromarray(np.zeros((4, 4, 3), np.uint8)), 8)
    assert list((tmp_path / "wandb").glob("offline-run-*/run-*.wandb"))


def test_wandb_without_a_key_is_told_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import wandb

    config = replace(tiny(), watch=replace(tiny().watch, wandb="flowbrush"))
    monkeypatch.setenv("WANDB_MODE", "online")
    wandb.teardown()  # it remembers the mode of the tests before
    monkeypatch.setattr(wandb, "login", lambda prompt: False)
    with pytest.raises(UserError, match="run wandb login first, or set WANDB_MODE=offline"):
        train(config, tmp_path / "run", CPU)
    assert list(tmp_path.iterdir()) == []


def test_folders_of_one_name_are_runs_of_their_own_in_wandb(tmp_path: Path) -> None:
    one, other, old = (tmp_path / name / "night" for name in "abc")
    for run in (one, other, old):
        run.mkdir(parents=True)
    (old / "wandb" / "offline-run-20260101_120000-night").mkdir(parents=True)
    assert wandb_id(one) == wandb_id(one) != wandb_id(other)
    assert wandb_id(old) == "night"


def test_broken_pictures_are_listed_once_each(tmp_path: Path) -> None:
    rejects = Rejects(tmp_path, 1_000, CPU)
    rejects.add(batch("a.png", "b.png"))
    rejects.add(batch("a.png"))
    listed = [json.loads(line) for line in (tmp_path / "rejected.jsonl").read_text().splitlines()]
    assert [entry["picture"] for entry in listed] == ["a.png", "b.png"]
    assert "2 broken pictures were skipped" in Rejects(tmp_path, 1_000, CPU).summary()


def test_a_list_of_broken_pictures_that_was_cut_short_goes_on(tmp_path: Path) -> None:
    Rejects(tmp_path, 1_000, CPU).add(batch("a.png", "b.png"))
    path = tmp_path / "rejected.jsonl"
    path.write_bytes(path.read_bytes()[:-5])
    Rejects(tmp_path, 1_000, CPU).add(batch("c.png"))
    listed = [json.loads(line)["picture"] for line in path.read_text().splitlines()]
    assert listed == ["a.png", "c.png"]


def test_a_full_disk_takes_no_line_of_the_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, *_: object) -> None:
        path.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    lines = '{"pictures": 8}\n{"pictures": 16}\n'
    (tmp_path / "journal.jsonl").write_text(lines)
    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space left"):
        Journal(tmp_path, tiny(), seen=8)
    assert (tmp_path / "journal.jsonl").read_text() == lines


def test_a_full_disk_is_told_with_the_runs_folder(tmp_path: Path) -> None:
    told = pytest.raises(UserError, match=f"{tmp_path}: No space left on device; free some")
    with told, opened(tmp_path, tiny(), ()):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_name_that_is_not_utf_8_is_listed_with_its_bytes(tmp_path: Path) -> None:
    for _ in range(2):
        Rejects(tmp_path, 1_000, CPU).add(batch("caf\udce9.png"))
    (line,) = (tmp_path / "rejected.jsonl").read_text("utf-8").splitlines()
    assert json.loads(line)["picture"] == r"caf\xe9.png"


def test_more_than_a_tenth_broken_are_a_problem(tmp_path: Path) -> None:
    rejects = Rejects(tmp_path, 20, CPU)
    rejects.add(batch("a.png", "b.png"))
    assert not rejects.problem
    rejects.add(batch("c.png"))
    assert rejects.problem.startswith("3 of about 20 pictures are broken, more than a tenth")


def test_broken_pictures_of_an_earlier_start_do_not_stop_this_one(tmp_path: Path) -> None:
    """They were read among many others, or are mended by now."""
    Rejects(tmp_path, 1_000, CPU).add(batch(*(f"{i}.png" for i in range(90))))
    rejects = Rejects(tmp_path, 1_000, CPU)
    rejects.add(batch("x.png"))
    assert (rejects.problem, "91 broken" in rejects.summary()) == ("", True)


def test_nine_in_a_hundred_broken_never_stop_a_run_by_chance(tmp_path: Path) -> None:
    for seed in range(20):
        places = random.Random(seed).sample(range(1_000), 1_000)
        rejects = Rejects(tmp_path, 1_000, CPU)
        for i in range(0, 1_000, 20):
            broken = [f"{place}.png" for place in places[i : i + 20] if place < 90]
            rejects.add(replace(batch(*broken), places=[*range(20 - len(broken))]))
        assert not rejects.problem


def test_rows_that_state_no_image_are_listed_and_stop_no_run(tmp_path: Path) -> None:
    rejects = Rejects(tmp_path, 20, CPU)
    missing = [IncompleteExample(f"{i}", "no picture in this row") for i in range(15)]
    rejects.add(replace(batch(), broken=missing))
    assert (rejects.problem, "15 broken pictures were" in rejects.summary()) == ("", True)


def test_two_processes_do_not_train_in_one_folder(tmp_path: Path) -> None:
    with (
        opened(tmp_path, tiny(), ()),
        pytest.raises(UserError, match="another process is training in it"),
        opened(tmp_path, tiny(), ()),
    ):
        pass


def test_a_run_cannot_be_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    other = pytest.raises(UserError, match="choose another folder with --run")
    with other, opened(tmp_path / "file", tiny(), ()):
        pass


def test_a_run_keeps_whom_its_pictures_are_due_to(tmp_path: Path) -> None:
    with opened(tmp_path, tiny(), (), attribution="All by OpenMoji"):
        assert (tmp_path / "ATTRIBUTION.txt").read_text() == "All by OpenMoji\n"


# -- measuring while training


def measured(tmp_path: Path, **choices: float) -> Path:
    config = tiny()
    evaluate = EvaluateConfig(every=40, validation=8, painted=6)
    config = replace(config, **{"held_out": 0.2, "evaluate": evaluate} | choices)
    assert train(config, tmp_path, CPU) == 0
    return tmp_path


def test_measuring_leaves_the_run_as_it_is(tmp_path: Path) -> None:
    with_it = measured(tmp_path / "with")
    without = measured(tmp_path / "without", evaluate=EvaluateConfig())
    for name in ("model.safetensors", "ema_0.9.safetensors", "optimizer.safetensors"):
        one, other = (next(run.glob(f"checkpoints/*160/{name}")) for run in (with_it, without))
        assert one.read_bytes() == other.read_bytes()


def test_what_is_measured_is_written_down_each_time(tmp_path: Path) -> None:
    found = recorded(measured(tmp_path))
    assert [one.pictures for one in found] == [40, 80, 120, 160]
    assert all(one.weights == "ema_0.9" and len(one.validation) == 8 for one in found)
    assert "held-out" in found[0].measured[-1].by
    assert "followed, English" in {one.name for one in found[0].measured}


def test_a_run_that_goes_on_measures_again_what_it_lost(tmp_path: Path) -> None:
    run = measured(tmp_path)
    before = (run / "evaluations.jsonl").read_text()
    shutil.rmtree(run / "checkpoints" / "000000000160")
    measured(tmp_path)
    again = (run / "evaluations.jsonl").read_text()

    def without_time(text: str) -> list[dict[str, object]]:
        return [{**json.loads(line), "seconds": {}} for line in text.splitlines()]

    assert without_time(again) == without_time(before)


def test_held_out_pictures_are_never_learned(tmp_path: Path, monkeypatch) -> None:
    source = ShapesWorldConfig(scenes=200).build(16)
    held_out = split(source, 0.2).held_out
    held = {held_out.place(i) for i in range(len(held_out))}
    asked: set[int] = set()
    one = ShapesWorld.__getitem__

    def watched(self: ShapesWorld, i: int) -> Example:
        asked.add(i)
        return one(self, i)

    monkeypatch.setattr(ShapesWorld, "__getitem__", watched)
    measured(tmp_path, evaluate=EvaluateConfig())
    assert len(asked) > 50
    assert not asked & held


def test_painting_from_prepared_shards_is_refused_at_the_start() -> None:
    config = replace(tiny(), source=PreparedConfig(), evaluate=EvaluateConfig(every=40))
    with pytest.raises(UserError, match=r"--evaluate\.painted 0 leaves the validation loss"):
        Watched(config, ShapesWorldConfig(scenes=4).build(16), None)
