"""What measuring a run costs: seconds a thousand pictures, and memory by their number.

    .venv/bin/python benchmarks/evaluation.py RUN [captions ...]

Each number of captions is painted and measured in a process of its own, from nothing, with
EfficientNet-Lite0's features; memory is the most that the process held.
"""

import json
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path


def measure(run: Path, captions: int) -> str:
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "run"
        shutil.copytree(run, copy, ignore=shutil.ignore_patterns("evaluations*", "averages"))
        child = [sys.executable, __file__, "child", str(copy), str(captions)]
        said = subprocess.run(child, capture_output=True, text=True, check=True).stdout
        line = json.loads((copy / "evaluations.jsonl").read_text().splitlines()[-1])
    each = {what: 1000 * taken / line["painted"] for what, taken in line["seconds"].items()}
    columns = " | ".join(f"{seconds:.0f}" for seconds in each.values())
    return f"| {line['painted']:,} | {columns} | {int(said.split()[-1]) / 1024:.0f} |"


def main() -> None:
    if sys.argv[1] == "child":
        from flowbrush.cli import main as flowbrush

        words = ["--limit", sys.argv[3], "--validation", "0", "--features", "efficientnet"]
        assert flowbrush(["evaluate", sys.argv[2], *words]) == 0
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
        return
    print("| pictures | painting, s a thousand | checking | features and metrics | MB |")
    print("|--:|--:|--:|--:|--:|")
    for captions in [int(word) for word in sys.argv[2:]] or [100, 400, 1000]:
        print(measure(Path(sys.argv[1]), captions), flush=True)


if __name__ == "__main__":
    main()
