"""The same prompts, painted again and again, so that one sees a run learn."""

from collections.abc import Iterable, Iterator
from itertools import islice

from PIL import Image

from flowbrush.contact_sheet import contact_sheet
from flowbrush.data.source import Source, UnreadablePicture, read_example
from flowbrush.errors import UserError
from flowbrush.randomness import derive
from flowbrush.text_to_image import TextToImage

MOST_PROMPTS = 16
FIRST, ELSEWHERE = 64, 1_000  # examples whose captions may be prompts


def preview(painter: TextToImage, prompts: list[str]) -> Image.Image:
    """One picture a prompt, always from the same noise, with the prompts below."""
    return contact_sheet(painter.generate(prompts, seeds=[0] * len(prompts)), prompts)


def preview_prompts(chosen: tuple[str, ...], source: Source) -> list[str]:
    """The chosen prompts, or else captions of the first examples; where none of these is readable,
    of examples from all over the source. Raises UserError where none of those is either."""
    if chosen:
        return list(chosen)
    broken: list[UnreadablePicture] = []
    n = len(source)
    first = range(min(n, FIRST))
    elsewhere = (derive(n, "prompts", draw) % n for draw in range(ELSEWHERE) if n > FIRST)
    found = list(_captions(source, first, broken))
    found = found or list(islice(_captions(source, elsewhere, broken), MOST_PROMPTS))
    if not found:
        raise UserError(
            f"source: none of {len(broken):,} examples can be read, the first is "
            f"{broken[0] if broken else 'not there'}; mend or remove them"
        )
    return list(dict.fromkeys(found))[:MOST_PROMPTS]


def _captions(
    source: Source, places: Iterable[int], broken: list[UnreadablePicture]
) -> Iterator[str]:
    """Of the examples that can be read; the others go to `broken`."""
    for i in places:
        try:
            yield from read_example(source, i).captions.values()
        except UnreadablePicture as error:
            broken.append(error)
