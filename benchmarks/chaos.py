"""One small run in two processes, and all that can go wrong with it; after each fault it goes on.

    .venv/bin/python benchmarks/chaos.py [kills] [none|full]

Kills (50) at random moments, a full disk, damaged checkpoints, shards that vanish or are cut short,
a store that is slow and fails. At the end the weights, averages and moments must be those of the
run that was left alone, to the bit, each step stand once in the journal with the same loss, and the
examples that were trained on, by their numbers, be the same. none|full: `train.sharding`.
"""

import http.server
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
from chaos_run import (
    EACH,
    EPOCHS,
    EXAMPLES,
    SAVED,
    SHARDS,
    SIZE,
    STAGE,
    WINDOW,
    Outcome,
    Run,
    compared,
    examples,
    first_place,
    make_shards,
    stage,
)

from flowbrush import checkpoint
from flowbrush.data import TarShardsConfig
from flowbrush.data.order import order_of
from flowbrush.experiment import TrainConfig

DISK = 48  # MB, of the one that runs full


class Table:
    """A row a kind of fault."""

    def __init__(self) -> None:
        self.well = True
        print(f"| fault | times | as it should | {' | '.join(HEAD)} |")
        print("|---|--:|--:|---|---|--:|--:|", flush=True)

    def add(self, fault: str, times: int, right: int, outcome: Outcome) -> None:
        """right: how often the run said or did then what it should."""
        end = [outcome.bits, outcome.journal, outcome.lost, outcome.repeated]
        self.well &= right == times and end == [True, True, 0, 0]
        told = ["yes" if x is True else "NO" if x is False else f"{x:,}" for x in end]
        print(f"| {fault} | {times} | {right} | {' | '.join(told)} |", flush=True)


HEAD = ("the same bits", "the same journal", "samples lost", "repeated")


# -- the faults


def kills(count: int, alone: Run, table: Table) -> None:
    """A random rank, KILL or TERM: in turns after some steps, while a checkpoint is being written,
    and in the middle of a start. Half of them under torchrun's own restarts. A run that gets to its
    end is compared, and another begun.
    """
    runs, done, writing, restarted = list[Run](), 0, 0, 0
    again, killed = 0, Counter[str]()
    run: Run | None = None
    while done < count:
        if run is None:
            run = Run(f"killed-{len(runs)}")
            runs.append(run)
            again = 0
            run.start()
        starting = done % 3 == 2
        training = run.until((lambda run=run: len(run.ranks()) == 2) if starting else run.begun)
        training = training and run.until(later(random.uniform(0, 8 if starting else 1.5)))
        if done % 3 == 1:
            training = training and run.until(run.writing)
        ranks = run.ranks()
        if not training or len(ranks) < 2:
            run.finish()
            run = None
            continue
        number = random.choice([signal.SIGKILL, signal.SIGTERM])
        half = run.writing()
        run.forget()
        with suppress(psutil.NoSuchProcess):
            ranks[random.choice([0, 1])].send_signal(number)
            done, writing = done + 1, writing + half
            killed[number.name] += 1
            print(f"  kill {done}, from {run.saved():,} on", file=sys.stderr)
        if again:
            again, restarted = again - 1, restarted + 1
            continue
        run.child.wait()
        again = 4 if done // 5 % 2 else 0
        run.start(again)
    if run:
        run.finish()
    outcomes = [compared(run, alone) for run in runs]
    every = Outcome(
        all(o.bits for o in outcomes),
        all(o.journal for o in outcomes),
        sum(o.lost for o in outcomes),
        sum(o.repeated for o in outcomes),
    )
    kinds = f"{killed['SIGKILL']} KILL, {killed['SIGTERM']} TERM"
    what = f"{writing} while a checkpoint was written, {restarted} restarted by torchrun"
    table.add(f"a process killed ({kinds}; {what}; {len(runs)} runs)", done, done, every)


def later(seconds: float) -> Callable[[], bool]:
    end = time.monotonic() + seconds
    return lambda: time.monotonic() > end


def full_disk(alone: Run, table: Table) -> None:
    """On a file system of its own, which only root can make."""
    disk = stage() / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK}m", "none", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        print("full disk: not tried, since no file system can be mounted here", file=sys.stderr)
        return
    try:
        run = Run("disk", folder=disk / "run")
        run.start()
        run.until(lambda: run.saved() >= 3 * SAVED)
        with suppress(OSError), (disk / "filler").open("wb", buffering=0) as filler:
            while filler.write(bytes(4096)):
                pass
        right = int(run.refused(str(disk)))
        whole = checkpoint.newest(run.folder / "checkpoints", lambda _: None)
        run.start()  # while it is still full
        right += run.refused(str(disk))
        (disk / "filler").unlink()
        run.start()
        run.until(run.begun)
        right += all(first_place(path) == int(whole.name) for path in run.begun())
        run.finish()
        outcome = compared(run, alone)
        table.add("a full disk (while training, at a start, and free again)", 3, right, outcome)
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[random.randrange(len(data))] ^= 1 << random.randrange(8)
    path.write_bytes(data)


DAMAGES: list[tuple[str, Callable[[Path], None]]] = [
    ("model*", flip),
    ("optimizer*", flip),
    ("ema_*", flip),
    ("power_*", flip),
    ("progress*", flip),
    ("manifest.json", flip),
    ("model*", lambda path: os.truncate(path, path.stat().st_size // 2)),
    ("optimizer*", lambda path: os.truncate(path, 0)),
    ("ema_*", Path.unlink),
    ("manifest.json", Path.unlink),
]


def damages(alone: Run, table: Table) -> None:
    """Kill it, damage the newest checkpoint, and look where it begins again."""
    run, right = Run("damaged"), 0
    run.start()
    for pattern, damage in DAMAGES:
        since = run.saved()
        run.until(run.begun)
        assert run.until(lambda since=since: run.saved() >= since + 2 * SAVED), run.said
        run.kill_all()
        before, newest = sorted((run.folder / "checkpoints").glob("[0-9]*"))[-2:]
        damage(random.choice(sorted(newest.glob(pattern))))
        run.start()
        run.until(run.begun)
        begins = {first_place(path) for path in run.begun()}
        right += begins == {int(before.name)} and f"{newest}: damaged" in run.said
    run.finish()
    outcome = compared(run, alone)
    table.add("a checkpoint cut, flipped or robbed of a file", len(DAMAGES), right, outcome)


def shards(alone: Run, table: Table) -> None:
    """The shard that the run will want last goes away, or loses its second half."""

    def cut(path: Path) -> None:
        os.truncate(path, path.stat().st_size // 2)

    kept, shown = stage() / "kept", stage() / "shown"
    shutil.copytree(stage() / "shards", shown, copy_function=shutil.copy2)
    shutil.copytree(shown, kept, copy_function=shutil.copy2)
    run = Run("shards", str(shown))
    order = order_of(TarShardsConfig(path=str(kept)).build(SIZE), WINDOW, TrainConfig().seed)
    right = {Path.unlink: 0, cut: 0}
    run.start()
    for harm in right:
        run.until(run.begun)
        here = max(first_place(path) for path in run.begun())
        coming = [order[here + step] // EACH for step in range(EXAMPLES)]
        shard = shown / f"{max(set(coming), key=coming.index):05}.tar"
        harm(shard)
        right[harm] += run.refused(str(shard))
        run.start()
        right[harm] += run.refused(str(shard))
        shutil.copy2(kept / shard.name, shard)
        run.start()
    run.finish()
    outcome = compared(run, alone)
    table.add("a shard gone (while training, and at a start)", 2, right[Path.unlink], outcome)
    table.add("a shard cut short (the same)", 2, right[cut], outcome)


class Store(http.server.ThreadingHTTPServer):
    """Serves the shards, in a mood."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.mood, self.did, self.coin = "moody", Counter[str](), random.Random(0)
        self.url = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()


class Answer(http.server.BaseHTTPRequestHandler):
    server: Store

    def do_GET(self) -> None:
        path, mood = stage() / "shards" / self.path.strip("/"), self.server.mood
        if mood == "moody":
            choices = ["503", "slow", "broken off"], [1, 6, 1]
            mood = self.server.coin.choices(*choices)[0]
        if mood != "404" and (not path.name.endswith(".tar") or not path.exists()):
            self.send_error(404)  # there is no index beside a shard
            return
        self.server.did[mood] += 1
        if mood in ("404", "503"):
            self.send_error(int(mood))
            return
        data = path.read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.close_connection = True
        with suppress(ConnectionError):
            for part in range(4 if mood == "slow" else 2):
                self.wfile.write(data[part * len(data) // 4 : (part + 1) * len(data) // 4])
                time.sleep(0.05)

    def log_message(self, format: str, *args: object) -> None:
        pass


def store(alone: Run, table: Table) -> None:
    with serving() as server:
        run = Run("store", f"{server.url}/{{00000..{SHARDS - 1:05}}}.tar")
        run.start()
        run.until(lambda: run.saved() >= 3 * SAVED)
        server.mood = "404"
        run.until(lambda: server.did["404"] >= 3)
        server.mood = "moody"
        run.until(lambda: run.saved() >= EXAMPLES + 3 * SAVED)
        server.mood = "503"
        right = int(run.refused(f"{server.url}/"))
        server.mood = "moody"
        run.start()
        run.finish()
    did = ", ".join(f"{count} {what}" for what, count in sorted(server.did.items()))
    outcome = compared(run, alone)
    table.add(f"a store that fails for good (answers in all: {did})", 1, right, outcome)


@contextmanager
def serving() -> Iterator[Store]:
    server = Store()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def main(count: int) -> None:
    random.seed(time.time_ns() ^ os.getpid())
    began = time.monotonic()
    make_shards()
    alone = Run("alone")
    alone.start()
    alone.finish()
    each = set(examples(alone).values())
    print(f"left alone: every one of {EXAMPLES:,} examples is learned {each} times\n")
    table = Table()
    kills(count, alone, table)
    for fault in (full_disk, damages, shards, store):
        fault(alone, table)
    print(
        f"\n{(time.monotonic() - began) / 60:.0f} minutes; ends with another status than 0, after"
    )
    print(f"all was trained and saved: {len(Run.odd)}", *Run.odd, sep="\n")
    sys.exit(not (table.well and each == {EPOCHS} and not Run.odd))


if __name__ == "__main__":
    if "full" in sys.argv[2:]:
        Run.options = ("--train.sharding", "full")
    with tempfile.TemporaryDirectory() as folder:
        os.environ[STAGE] = folder
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 50)
