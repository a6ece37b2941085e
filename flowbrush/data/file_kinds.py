"""What a file is, by its name: a caption, what a system left there, or what nothing reads.

Leftovers are what systems and network storage put beside a user's files: thumbnails, resource forks
of macOS, bins. They are no images of a data set, whatever their endings.
"""

import os

from flowbrush.data.pictures import undecoded

CAPTIONS = (".txt", ".caption")
_VIDEOS = ".avi .flv .m4v .mkv .mov .mp4 .mpeg .mpg .mts .webm .wmv".split()  # noqa: SIM905
_LEFTOVERS = {
    *("@eadir", "@tmp", "@recycle", "@recently-snapshot", "#recycle", "#snapshot"),  # of a NAS
    *("$recycle.bin", "system volume information", "thumbs.db", "ehthumbs.db", "desktop.ini"),
    *("__macosx", "lost+found"),
}


def unread(name: str) -> str:
    """Why a file that holds an image or a film is not read, to be counted by; else empty."""
    return "videos" if ending(name) in _VIDEOS else undecoded(name)


def is_leftover(name: str) -> bool:
    """Whether a file or folder of this name is hidden, or was left by a system."""
    return name.startswith(".") or name.lower() in _LEFTOVERS


def ending(name: str) -> str:
    return os.path.splitext(name)[1].lower()
