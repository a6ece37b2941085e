"""Shards over the machines of a Ray cluster: actors that build the models once, and take shards."""

import logging
import os
from typing import Any

import numpy as np
from tqdm import tqdm

from flowbrush.errors import UserError
from flowbrush.prepare.shards import Encoding, Work, is_finished, write_shard
from flowbrush.processes import choose_device

FREE_CPUS = 2  # beyond the actors': Ray's own tasks wait for ever where there are none
MOST_BLOCKS = 1000


class Encoder:
    """An actor. What it was at when it was killed another one begins again; no finished shard."""

    def __init__(self, work: Work, device: str) -> None:
        self._work, self._device = work, device
        self._encoding: Encoding | None = None

    def __call__(self, rows: dict[str, np.ndarray]) -> dict[str, list[Any]]:
        """`item`, the number of a shard, in; out how many pictures of it were encoded.

        `refused` is what the user can mend: an error of its own kind would not get through.
        """
        (number,) = rows["item"].tolist()
        try:
            return {"pictures": [self._encode(number)], "refused": [""]}
        except UserError as error:
            return {"pictures": [0], "refused": [str(error)]}

    def _encode(self, number: int) -> int:
        if self._encoding is None:
            self._encoding = self._work.encoding(choose_device(self._device))
        if is_finished(self._work.folder, number):  # by an actor that was killed after it
            return 0
        return write_shard(self._work, number, self._encoding).samples


def encode_with_ray(work: Work, numbers: list[int], workers: int, device: str) -> int:
    """Encode these shards on `workers` actors; returns how many pictures. Its folder is shared.

    A cluster is joined where RAY_ADDRESS names one, else begun on this machine.
    Raises UserError where Ray is missing, and what `write_shard` raises.
    """
    ray = _import_ray()
    if not ray.is_initialized():
        quiet: dict[str, Any] = {"include_dashboard": False, "logging_level": "error"}
        if not os.environ.get("RAY_ADDRESS"):
            quiet |= {"num_cpus": workers + FREE_CPUS, "_node_ip_address": "127.0.0.1"}
        ray.init(**quiet)
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    gpus = int(device.startswith("cuda") or ("GPU" in ray.cluster_resources() and device == "auto"))
    encoded = ray.data.from_items(
        numbers, override_num_blocks=min(len(numbers), MOST_BLOCKS)
    ).map_batches(
        Encoder,
        fn_constructor_args=(work, device),
        batch_size=1,
        num_cpus=1,
        num_gpus=gpus,
        compute=ray.data.ActorPoolStrategy(size=workers),
    )
    pictures = 0
    with tqdm(total=len(numbers), unit="shards") as bar:
        for row in encoded.iter_rows():
            if row["refused"]:
                raise UserError(row["refused"])
            pictures += int(row["pictures"])
            bar.update()
    return pictures


def _import_ray() -> Any:
    try:
        import ray
        import ray.data
    except ImportError:
        raise UserError("--engine ray: Ray is missing; pip install 'flowbrush[ray]'") from None
    return ray
