"""Text-to-image models, trained from scratch with flow matching and diffusion transformers."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowbrush.experiment import ExperimentConfig
    from flowbrush.recipes import recipe
    from flowbrush.text_to_image import TextToImage

__version__ = "0.1.0"
__all__ = ["ExperimentConfig", "TextToImage", "recipe"]

_ROOMS = {
    "ExperimentConfig": "flowbrush.experiment",
    "TextToImage": "flowbrush.text_to_image",
    "recipe": "flowbrush.recipes",
}


def __getattr__(name: str) -> Any:
    """The public names, imported when they are asked for: `import flowbrush` stays quick."""
    if name not in _ROOMS:
        raise AttributeError(f"module 'flowbrush' has no attribute '{name}'")
    import importlib

    return getattr(importlib.import_module(_ROOMS[name]), name)
