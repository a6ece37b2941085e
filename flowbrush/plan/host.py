"""This machine's memory, and how much of it this process holds."""

import os
import resource
import sys
from pathlib import Path


def resident() -> int:
    """Bytes that this process holds; on macOS the most that it has held."""
    known = Path("/proc/self/statm")
    if known.exists():
        return int(known.read_text().split()[1]) * resource.getpagesize()
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most


def memory_here() -> int:
    """Bytes of this machine's memory."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
