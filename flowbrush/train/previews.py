"""The same prompts, painted again and again, so that one sees a run learn."""

from PIL import Image

from flowbrush.contact_sheet import contact_sheet
from flowbrush.data.source import Source, UnreadablePicture
from flowbrush.text_to_image import TextToImage

MOST_PROMPTS = 16


def preview(painter: TextToImage, prompts: list[str]) -> Image.Image:
    """One picture a prompt, always from the same noise, with the prompts below."""
    return contact_sheet(painter.generate(prompts, seeds=[0] * len(prompts)), prompts)


def preview_prompts(chosen: tuple[str, ...], source: Source) -> list[str]:
    """The chosen prompts, or else captions of the first examples."""
    if chosen:
        return list(chosen)
    found: list[str] = []
    for i in range(min(len(source), 4 * MOST_PROMPTS)):
        try:
            found += source[i].captions.values()
        except UnreadablePicture:
            continue
    return list(dict.fromkeys(found))[:MOST_PROMPTS]
