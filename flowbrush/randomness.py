"""Every random number is a function of (seed, purpose, index), so there is no random state to save.

The index is a sample's position in the global order of training, or an optimizer step. What a
sample draws therefore depends neither on the number of processes nor on the batch around it.
"""

import hashlib
from collections.abc import Sequence

import torch
from jaxtyping import Float, Float64
from torch import Tensor


def derive(seed: int, purpose: str, index: int) -> int:
    """A 63-bit seed for one purpose and one index: the BLAKE2b hash of the three."""
    digest = hashlib.blake2b(f"{seed}/{purpose}/{index}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def uniform(seed: int, purpose: str, indices: Sequence[int]) -> Float64[Tensor, " b"]:
    """One number in the open interval (0, 1) for each index, on the CPU."""
    numbers = [
        (derive(seed, purpose, i) >> 11) + 0.5 for i in indices
    ]  # 52 bits: exact in a double
    return torch.tensor(numbers, dtype=torch.float64) / 2**52


def normal(
    seeds: Sequence[int], shape: Sequence[int], device: torch.device
) -> Float[Tensor, "b ..."]:
    """Standard normal noise of `shape` for each seed; a picture's noise is the same in any batch.

    The CPU and an accelerator draw different numbers from one seed.
    """
    noise = torch.empty(len(seeds), *shape, device=device)
    generator = torch.Generator(device)
    for row, seed in zip(noise, seeds, strict=True):
        row.normal_(generator=generator.manual_seed(seed))
    return noise
