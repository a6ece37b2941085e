"""What a run writes down: lines of JSON, a curve, a progress bar, TensorBoard or W&B if asked."""

import glob
import json
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from flowbrush.autoencoding import Experiment
from flowbrush.config_io import to_json
from flowbrush.contact_sheet import save
from flowbrush.data.batches import Batch
from flowbrush.errors import NotFinite, UserError
from flowbrush.evaluate.record import RECORD_FILE, Evaluation, record
from flowbrush.experiment import WatchConfig
from flowbrush.plan.flops import Work
from flowbrush.processes import synchronize
from flowbrush.whole_files import written_whole

JOURNAL_FILE, CURVE_FILE, WANDB_ID_FILE = "journal.jsonl", "loss.png", "wandb-id"
HOST = torch.device("cpu")


class Journal:
    """Numbers stay on the device until they are written, so that a step does not wait for them.

    One that is `silent`, of a process beside the main one, writes nothing.
    """

    def __init__(
        self,
        run: Path,
        config: Experiment,
        seen: int,
        silent: bool = False,
        work: Work | None = None,
        device: torch.device = HOST,
    ) -> None:
        """work: of a picture, to write down how much is computed; None = not known.

        device: which the network is on, and which the clock waits for.
        """
        self._run, self._batch, self._silent = run, config.batch.size, silent
        self._work, self._device = work, device
        # Since the last line: seconds, and steps whose time counts.
        self._waited, self._overhead, self._steps = 0.0, 0.0, 0
        self._shapes = set[torch.Size]()
        self._warming_up_since: float | None = None
        self._pending: list[Tensor] = []
        self._lines = [] if silent else _lines_until(run / JOURNAL_FILE, seen)
        if not silent:
            _lines_until(run / RECORD_FILE, seen)
        patience = 0.2 if sys.stderr.isatty() else 10  # seconds between two looks of the bar
        self._bar = tqdm(
            disable=silent,
            mininterval=patience,
            total=config.train.pictures,
            initial=seen,
            unit="pic",
            unit_scale=True,
            dynamic_ncols=True,
        )
        self._board = self._wandb = None
        if config.watch.tensorboard and not silent:
            self._board = _import_tensorboard()(str(run / "tensorboard"))
        if config.watch.wandb and not silent:
            self._wandb = _wandb(run, config)
        if work and work.told and not silent:
            self.say(work.told)
        self._since = time.perf_counter()

    def timed(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The batches. How long they are waited for is written down.

        The first step, and the first of each other shape, is no part of the speed, nor is the wait
        for its batch: workers start, kernels are chosen and compiled.
        """
        iterator = iter(batches)
        while True:
            began = time.perf_counter()
            batch = next(iterator, None)
            if batch is None:
                return
            if batch.pictures.shape in self._shapes:
                self._waited += time.perf_counter() - began
            else:
                self._shapes.add(batch.pictures.shape)
                self._warming_up_since = began
            yield batch

    def add(self, loss: Tensor, norm: Tensor, skipped: Tensor) -> None:
        """Take in a step's loss, its gradient's norm, and whether it was skipped: 0 or 1.

        All are scalars on the device.
        """
        self._pending.append(torch.stack([loss, norm, skipped]).detach().float())
        self._bar.update(self._batch)
        if self._warming_up_since is None:
            self._steps += 1
        else:
            self._leave_out(self._warming_up_since)
            self._warming_up_since = None

    @contextmanager
    def beside(self) -> Iterator[None]:
        """Around what is not training: previews, evaluation, checkpoints. It is not in the speed.

        Where an image there is not finite, that is said, and training goes on.
        """
        if not self._silent:
            synchronize(self._device)
        began = time.perf_counter()
        try:
            yield
        except NotFinite as error:
            self.say(str(error))
        finally:
            self._leave_out(began)

    def _leave_out(self, since: float) -> None:
        if self._silent:
            return
        synchronize(self._device)
        seconds = time.perf_counter() - since
        self._overhead += seconds
        self._bar.last_print_t += seconds  # so that neither is it in the bar's speed

    def write(self, seen: int, lr: float) -> None:
        """Write the means of the steps since the last line, without those that were skipped."""
        if not self._pending or self._silent:
            self._pending.clear()
            return
        loss, norm, skipped = torch.stack(self._pending).cpu().unbind(dim=1)
        taken = skipped == 0
        if not taken.any():
            return  # the next line counts them
        self._pending.clear()
        line = {
            "pictures": seen,
            "loss": float(loss[taken].mean()),
            "gradient_norm": float(norm[taken].mean()),
            "lr": lr,
            "skipped": int(skipped.sum()),
            **self._speed(),
        }
        self._lines.append(line)
        with (self._run / JOURNAL_FILE).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        self._bar.set_postfix(loss=f"{line['loss']:.4f}")
        if self._board:
            for name in line.keys() - {"pictures"}:
                self._board.add_scalar(name, line[name], seen)
        if self._wandb:
            self._wandb.log(line)

    def _speed(self) -> dict[str, float]:
        """Of the training since the last line; nothing where no step's time counts."""
        now = time.perf_counter()
        passed, training = now - self._since, now - self._since - self._overhead
        found = {"overhead": round(self._overhead / passed, 4)}  # share of the time
        if self._steps:
            rate = self._steps * self._batch / training
            found["pictures_per_second"] = round(rate, 2)
            found["waiting"] = round(self._waited / training, 4)  # share of the rest; for data
            if self._work:
                found["tflops"] = round(rate * self._work.flops / 1e12, 6)
                if self._work.peak:
                    found["mfu"] = round(rate * self._work.flops / self._work.peak, 4)
        self._since, self._waited, self._overhead, self._steps = now, 0.0, 0.0, 0
        return found

    def show(self, preview: Image.Image, seen: int) -> None:
        """Write a preview, as a PNG in the run's folder too."""
        if self._silent:
            return
        save(preview, self._run / "previews" / f"{seen:012d}.png")
        if self._board:
            import numpy as np

            self._board.add_image("preview", np.asarray(preview), seen, dataformats="HWC")
        if self._wandb:
            import wandb

            self._wandb.log({"pictures": seen, "preview": wandb.Image(preview)})

    def evaluated(self, one: Evaluation) -> None:
        """Write down what was measured, and say it."""
        if self._silent:
            return
        record(self._run, one)
        figures = [(m.name, m.value) for m in one.measured]
        if self._board:
            for name, value in figures:
                self._board.add_scalar(name, value, one.pictures)
        if self._wandb:
            self._wandb.log({"pictures": one.pictures, **dict(figures)})
        self.say(
            f"{one.pictures:,}: " + ", ".join(f"{name} {value:.4g}" for name, value in figures)
        )

    def say(self, line: str) -> None:
        """A line for the user, above the progress bar."""
        if not self._silent:
            self._bar.write(line)

    def draw(self) -> None:
        """The loss as a curve over the pictures seen."""
        if self._lines:
            _draw_curve(self._lines, self._run / CURVE_FILE)

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()
        if self._board:
            self._board.close()
        if self._wandb:
            self._wandb.finish()


def _lines_until(path: Path, seen: int) -> list[dict[str, Any]]:
    """The lines up to the pictures seen; later ones, left by a crash, are taken out of the file."""
    if not path.exists():
        return []
    lines = []
    for text in path.read_text("utf-8").splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            break  # cut short by the crash
        if line["pictures"] <= seen:
            lines.append(line)
    with written_whole(path) as aside:  # so that a crash or a full disk here costs no line
        aside.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return lines


def _draw_curve(lines: list[dict[str, Any]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot([line["pictures"] for line in lines], [line["loss"] for line in lines], lw=1.2)
    axes.set(xlabel="pictures seen", ylabel="loss", yscale="log")
    axes.grid(True, which="both", alpha=0.25)
    figure.savefig(path, dpi=110)


def check_loggers(config: WatchConfig) -> None:
    """Raises UserError, before anything is computed, where TensorBoard or W&B cannot be used."""
    if config.tensorboard:
        _import_tensorboard()
    if not config.wandb:
        return
    wandb = _import_wandb()
    if wandb.setup().settings.mode != "online":
        return
    try:
        reason = "" if wandb.login(prompt=False) else "no API key"
    except wandb.errors.Error as error:
        reason = str(error)
    if reason:
        raise UserError(f"watch.wandb: {reason}; run wandb login first, or set WANDB_MODE=offline")


def _import_tensorboard() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UserError("watch.tensorboard: missing; pip install 'flowbrush[log]'") from None
    return SummaryWriter


def _import_wandb() -> Any:
    try:
        import wandb
    except ImportError:
        raise UserError("watch.wandb: missing; pip install 'flowbrush[log]'") from None
    return wandb


def _wandb(run: Path, config: Experiment) -> Any:
    wandb = _import_wandb()
    try:
        return wandb.init(
            project=config.watch.wandb,
            name=run.name,
            id=wandb_id(run),
            dir=run,
            resume="allow",
            config=to_json(config),
        )
    except wandb.errors.Error as error:
        raise UserError(
            f"watch.wandb: {error}; mend that, or set WANDB_MODE=offline and go on"
        ) from None


def wandb_id(run: Path) -> str:
    """Under which W&B knows this folder, whatever others are called: kept in it.

    A run that W&B knew before there was such a file goes on under its folder's name.
    """
    path = run / WANDB_ID_FILE
    if not path.exists():
        known = any((run / "wandb").glob(f"*run-*-{glob.escape(run.name)}"))
        with written_whole(path) as aside:
            aside.write_text(run.name if known else uuid4().hex, "utf-8")
    return path.read_text("utf-8").strip()


def is_time(every: int, seen: int, b: int) -> bool:
    """Whether the step that brought the pictures to `seen` crossed a multiple of `every`."""
    return seen // every > (seen - b) // every
