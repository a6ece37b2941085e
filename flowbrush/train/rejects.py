"""A run's unreadable pictures: counted, listed in a file, and never passed over in silence."""

import json
import os
from collections import Counter
from pathlib import Path

from flowbrush.data.batches import Batch
from flowbrush.data.source import IncompleteExample, UnreadablePicture, too_many
from flowbrush.processes import Processes

REJECTS_FILE = "rejected.jsonl"
MIN_READ = 100  # before the share of the broken ones means anything


class Rejects:
    """The examples that a run skipped, each once, by any process. The main one lists them.

    There are `size` examples in all. problem: one line once too many of those that were read since
    the start are broken, else empty. What was mended since an earlier start counts no more.
    """

    def __init__(self, run: Path, size: int, processes: Processes) -> None:
        self.path, self._size, self._read = run / REJECTS_FILE, size, 0
        self._broken, self.problem = set[str](), ""
        self._processes = processes
        found = self.path.read_bytes() if self.path.exists() else b""
        *lines, cut = found.split(b"\n")
        if cut and processes.is_main:  # by a crash in the middle of a line
            os.truncate(self.path, len(found) - len(cut))
        entries = [json.loads(line) for line in lines]
        self._known = {entry["picture"] for entry in entries}
        self.reasons = Counter(entry["reason"] for entry in entries)

    def add(self, batch: Batch) -> None:
        """Take in what a batch skipped."""
        broken = list[UnreadablePicture]()
        if self._processes.largest(len(batch.broken)):  # rare, and dearer to gather than to ask for
            broken = [error for part in self._processes.gathered(batch.broken) for error in part]
        self._read += len(batch.places) * self._processes.world + len(broken)
        for error in broken:
            if not isinstance(error, IncompleteExample):
                self._broken.add(error.name)
            if error.name not in self._known:
                self._known.add(error.name)
                self.reasons[error.reason] += 1
                entry = {"picture": error.name, "reason": error.reason}
                if self._processes.is_main:
                    with self.path.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(entry, ensure_ascii=False) + "\n")
        read = min(self._size, max(self._read, MIN_READ))
        if too_many(len(self._broken), read, self._size):
            self.problem = (
                f"{len(self._broken)} of about {read} pictures are broken, more than a tenth; "
                f"mend or remove those listed in {self.path}"
            )

    def summary(self) -> str:
        """One line for the user; empty if every picture could be read."""
        if not self._known:
            return ""
        return f"{len(self._known)} broken pictures were skipped; {self.path} lists them"
