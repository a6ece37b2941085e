"""Twenty times: SIGKILL `flowbrush prepare`, each time into the same folder, then let it finish.

    .venv/bin/python benchmarks/prepare_kills.py [kills] [local|ray]

Under Ray it is an actor that is killed, and soon the process that began them all. Every other kill
waits for a moment at which a file is half-written. At the end every example must be there once,
every shard agree with its record, and every bit be that of an undisturbed run.
"""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import psutil
from safetensors.torch import load_file

from flowbrush.data import ShapesWorldConfig
from flowbrush.experiment import ExperimentConfig
from flowbrush.recipes import recipe

ENGINE = sys.argv[2] if len(sys.argv) > 2 else "local"
SCENES, SHARD = 6_000, 100 if ENGINE == "local" else 40


def scenes() -> ExperimentConfig:
    """`shapes` with fewer scenes."""
    return replace(recipe("shapes"), source=ShapesWorldConfig(scenes=SCENES))


def start(folder: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "flowbrush", "prepare", f"{__file__}:scenes"]
    return subprocess.Popen(
        [*command, "--to", str(folder), "--shard", str(SHARD), "--engine", ENGINE],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def finished(folder: Path) -> int:
    return len(list(folder.glob("shard-*.json")))


def writing(child: subprocess.Popen[bytes], folder: Path) -> bool:
    writer = child.pid if ENGINE == "local" else "*"
    return any(folder.glob(f".aside-*-{writer}"))


def actors() -> list[psutil.Process]:
    """Those of Ray that are at work on shards."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = " ".join(process.info["cmdline"] or [])
        if words.startswith("ray::Encoder"):  # others keep the cluster itself alive
            found.append(process)
    return found


def kill_once(folder: Path, while_writing: bool) -> bool | None:
    """Whether a file was half-written at the kill; None where the work was over before it."""
    before, child = finished(folder), start(folder)
    while child.poll() is None and finished(folder) == before:
        time.sleep(0.002)
    time.sleep(random.uniform(0, 0.3))
    while while_writing and child.poll() is None and not writing(child, folder):
        time.sleep(0.0001)
    if ENGINE == "ray" and (chosen := actors()):
        random.choice(chosen).kill()  # the others and a new one go on
        time.sleep(random.uniform(0, 2))
    child.send_signal(signal.SIGKILL)
    killed = child.wait() == -signal.SIGKILL
    return writing(child, folder) if killed else None


def digests(folder: Path) -> dict[str, str]:
    paths = sorted(folder.glob("*.safetensors"))
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def main() -> None:
    kills = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    random.seed(time.time_ns() ^ os.getpid())
    with tempfile.TemporaryDirectory() as parent:
        whole, folder, half = Path(parent) / "whole", Path(parent) / "killed", 0
        assert start(whole).wait() == 0
        print("| kill | shards finished | a file half-written |\n|---|---|---|")
        for kill in range(kills):
            was_writing = kill_once(folder, while_writing=kill % 2 == 1)
            assert was_writing is not None, "the work was over before the kill: add scenes"
            half += was_writing
            print(
                f"| {kill + 1} | {finished(folder)} | {'yes' if was_writing else ''} |", flush=True
            )
        assert start(folder).wait() == 0
        found = digests(folder)
        records = {
            path.with_suffix(".safetensors").name: json.loads(path.read_text())["sha256"]
            for path in folder.glob("shard-*.json")
        }
        shards = sorted(folder.glob("shard-*.safetensors"))
        indices = [i for path in shards for i in load_file(path)["index"].tolist()]
        once = indices == list(range(SCENES))
        agree = all(found[name] == digest for name, digest in records.items())
        same, left = found == digests(whole), len(list(folder.glob(".aside-*")))
    print(
        f"\n{kills} kills, {half} of them while a file was being written: every example once: "
        f"{once}; all {len(records)} hashes agree: {agree}; the same bits as undisturbed: {same}; "
        f"left over: {left}"
    )
    sys.exit(not (once and agree and same and not left))


if __name__ == "__main__":
    main()
