"""Shards over the machines of a Ray cluster: actors that build the models once, and take shards.

Ray's own actors, not Ray Data's: only numbers of shards travel, and threads of Ray Data that an
error left behind have ended the process with a status of their own.
"""

import os
from collections.abc import Iterator
from typing import Any

from tqdm import tqdm

from flowbrush.errors import UserError
from flowbrush.prepare.shards import Encoding, Work, is_finished, write_shard
from flowbrush.processes import choose_device


class Encoder:
    """An actor. What it was at when it was killed another one begins again; no finished shard."""

    def __init__(self, work: Work, device: str) -> None:
        self._work, self._device = work, device
        self._encoding: Encoding | None = None

    def encode(self, number: int) -> tuple[int, str]:
        """Encode a shard; returns how many pictures, and what the user can mend ("" for nothing).

        It is returned since an error of the house's own kind would not get through.
        """
        try:
            if self._encoding is None:
                self._encoding = self._work.encoding(choose_device(self._device))
            if is_finished(self._work.folder, number):  # by an actor that was killed after it
                return 0, ""
            return write_shard(self._work, number, self._encoding).samples, ""
        except UserError as error:
            return 0, str(error)


def encode_with_ray(work: Work, numbers: list[int], workers: int, device: str) -> int:
    """Encode these shards on `workers` actors; returns how many pictures. Its folder is shared.

    A cluster is joined where RAY_ADDRESS names one, else begun on this machine.
    Raises UserError where Ray is missing, and what `write_shard` raises.
    """
    try:
        import ray
    except ImportError:
        raise UserError("--engine ray: Ray is missing; pip install 'flowbrush[ray]'") from None
    if not ray.is_initialized():
        quiet: dict[str, Any] = {"include_dashboard": False, "logging_level": "error"}
        if not os.environ.get("RAY_ADDRESS"):
            quiet |= {"num_cpus": workers, "_node_ip_address": "127.0.0.1"}
        ray.init(**quiet)
    gpus = int(device.startswith("cuda") or ("GPU" in ray.cluster_resources() and device == "auto"))
    actor: Any = ray.remote(Encoder).options(num_cpus=1, num_gpus=gpus, max_restarts=-1)
    encoders = [actor.remote(work, device) for _ in range(min(workers, len(numbers)))]
    pictures = 0
    try:
        with tqdm(total=len(numbers), unit="shards") as bar:
            for of_shard, refused in _encoded(encoders, numbers):
                if refused:
                    raise UserError(refused)
                pictures += of_shard
                bar.update()
    finally:
        for encoder in encoders:  # after the shard that it is at
            encoder.__ray_terminate__.remote()
    return pictures


def _encoded(encoders: list[Any], numbers: list[int]) -> Iterator[tuple[int, str]]:
    """What each shard came to, in the order that they end in.

    An actor gets its first shard when it runs: there may be room for fewer than were asked for.
    """
    import ray

    left = list(reversed(numbers))
    starting = {encoder.__ray_ready__.remote(): encoder for encoder in encoders}
    encoding: dict[Any, Any] = {}
    while left or encoding:
        (ended,), _ = ray.wait([*starting, *encoding])
        if ended in encoding:
            encoder = encoding.pop(ended)
            yield ray.get(ended)
        else:
            encoder = starting.pop(ended)
        if left:  # the retries are of this call alone: an actor's end is not to be tried again
            again = encoder.encode.options(max_task_retries=-1)
            encoding[again.remote(left.pop())] = encoder
