"""How wide the pictures of a tar are to their height: told by its .json files, or else looked up.

What was looked up is kept beside the index, as NAME.tar.aspects.safetensors, with 4 bytes a sample.
"""

import io
import json
import math
import os
from pathlib import Path

import numpy as np
from jaxtyping import Float32
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from flowbrush.data import columns, tar_index
from flowbrush.data.pictures import aspect
from flowbrush.data.remote import is_remote
from flowbrush.data.tar_index import Index
from flowbrush.errors import UserError
from flowbrush.whole_files import write_whole

ENDING = ".aspects.safetensors"
HEADER = 16_384  # bytes of a picture within which nearly every header ends


def aspects_of(name: str, index: Index, cache: Path) -> Float32[np.ndarray, " n"]:
    """Width / height of each sample of a tar; NaN of a picture without a header.

    One pass over the headers of the pictures where the .json files do not tell, which is kept.
    Raises UserError where they do not and the tar is a remote one.
    """
    told = np.full(len(index), np.nan, np.float32)
    for pair in columns.SIDES:
        width, height = (index.arrays.get(f"number.{side}") for side in pair)
        if width is not None and height is not None:
            told = np.where(np.isnan(told), columns.aspects_of(width, height), told)
    if not np.isnan(told).any():
        return told
    if not is_remote(name):
        return np.where(np.isnan(told), _looked_up(Path(name), index, cache), told)
    if np.isnan(told).all():
        raise UserError(
            f"buckets.step: the .json files of {name} tell no width and height, and it is not "
            "fetched to look; leave it at 0, or download the shards"
        )
    return told


def _looked_up(tar: Path, index: Index, cache: Path) -> Float32[np.ndarray, " n"]:
    kept = tar_index.cached_index(str(tar.absolute()), cache)
    places = [tar.with_name(tar.name + ENDING), kept.with_suffix(ENDING)]
    stamp = json.dumps(index.stamp)
    for place in places:
        try:
            with safe_open(place, "np") as file:
                if file.metadata() == {"stamp": stamp}:
                    return file.get_tensor("aspect")
        except (OSError, SafetensorError):
            continue
    file = tar_index.open_file(tar, str(tar))
    try:
        extents = (index.extent("picture", row) for row in range(len(index)))
        found = np.array([_aspect(file, at, size) for at, size in extents], np.float32)
    finally:
        os.close(file)
    for place in places:
        try:
            write_whole(place, save({"aspect": found}, {"stamp": stamp}))
            break
        except OSError:
            continue  # it is looked up again
    return found


def _aspect(file: int, at: int, size: int) -> float:
    try:
        found = aspect(io.BytesIO(os.pread(file, min(size, HEADER), at)))
        return aspect(io.BytesIO(os.pread(file, size, at))) if math.isnan(found) else found
    except OSError:
        return math.nan
