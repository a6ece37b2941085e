"""What devices can do at most, from their makers' data sheets."""

from dataclasses import dataclass

import torch

GIB = 2**30


@dataclass(frozen=True)
class Device:
    """Rates are those of dense products, at which nothing real arrives."""

    name: str
    memory: float  # bytes
    bf16: float  # FLOP/s, accumulated in fp32
    fp32: float  # FLOP/s, without TF32
    bandwidth: float  # of its memory, bytes/s
    source: str

    def peak(self, dtype: torch.dtype) -> float:
        """FLOP/s."""
        return self.fp32 if dtype == torch.float32 else self.bf16


def _nvidia(name: str, gib: float, bf16: float, fp32: float, bandwidth: float) -> Device:
    """gib: what CUDA reports, rounded down. Rates in TFLOP/s and TB/s."""
    rates = (bf16 * 1e12, fp32 * 1e12, bandwidth * 1e12)
    return Device(name, gib * GIB, *rates, "NVIDIA's data sheet, dense")


DEVICES = {
    "a100": _nvidia("A100 SXM 80 GB", 79.0, 312.0, 19.5, 2.04),
    "h100": _nvidia("H100 SXM", 79.0, 989.0, 67.0, 3.35),
    "h200": _nvidia("H200 SXM", 139.0, 989.0, 67.0, 4.8),
    "b200": _nvidia("B200 SXM", 178.0, 2250.0, 75.0, 7.7),
    "l4": _nvidia("L4", 22.0, 121.0, 30.3, 0.3),
    "l40s": _nvidia("L40S", 44.0, 362.0, 91.6, 0.864),
    "rtx4090": _nvidia("GeForce RTX 4090", 23.5, 165.0, 82.6, 1.008),
    "mi300x": Device("MI300X", 191.0 * GIB, 1307e12, 163e12, 5.3e12, "AMD's data sheet, dense"),
}


def named(name: str) -> Device | None:
    """The device that CUDA calls so, where its figures are known. PCIe and NVL cards are slower."""
    words = name.lower().replace("rtx ", "rtx").replace("-", " ").split()
    if {"pcie", "nvl"} & set(words):
        return None
    return next((DEVICES[word] for word in words if word in DEVICES), None)
