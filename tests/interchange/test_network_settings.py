"""Every setting of a network in diffusers' config.json has its place, and others are refused."""

import inspect
from collections.abc import Callable
from typing import Any

import diffusers
import pytest

from flowbrush.errors import UserError
from flowbrush.interchange import flux, pixart, sd3

FAMILIES: dict[str, tuple[Any, dict[str, Any], set[str]]] = {
    "FluxTransformer2DModel": (flux.config_from, flux.DEFAULTS, set()),
    "SD3Transformer2DModel": (sd3.config_from, sd3.DEFAULTS, set()),
    "PixArtTransformer2DModel": (pixart.config_from, pixart.DEFAULTS, pixart.IDLE),
    "Transformer2DModel": (pixart.config_from, pixart.DEFAULTS, pixart.IDLE),
}
NEEDED = {"caption_channels": 16}  # which diffusers' default leaves a PixArt without


def there(name: str) -> dict[str, Any]:
    signature = inspect.signature(getattr(diffusers, name).__init__)
    return {p.name: p.default for p in signature.parameters.values() if p.name != "self"}


@pytest.mark.parametrize("name", FAMILIES)
def test_every_setting_of_diffusers_is_followed_or_has_its_one_value(name: str) -> None:
    read, defaults, idle = FAMILIES[name]
    assert set(there(name)) <= {*defaults, *idle}
    if name != "Transformer2DModel":  # of which a PixArt is one of many
        own = {k: v for k, v in there(name).items() if k not in idle}
        assert own == {k: defaults[k] for k in own}
        _of(read, {"_class_name": name, "_name_or_path": "x", **there(name)})


@pytest.mark.parametrize("name", FAMILIES)
def test_a_setting_that_is_not_known_is_refused_by_name(name: str) -> None:
    read = FAMILIES[name][0]
    with pytest.raises(UserError, match=r"there: config\.json: new_law is 'cubic', which is not"):
        _of(read, {"new_law": "cubic"})


@pytest.mark.parametrize(
    ("key", "value"),
    [("upcast_attention", True), ("dropout", 0.1), ("only_cross_attention", True),
     ("norm_elementwise_affine", True), ("num_vector_embeds", 8)],
)  # fmt: skip
def test_a_pixart_with_another_value_than_its_own_is_refused(key: str, value: Any) -> None:
    with pytest.raises(UserError, match=f"{key} is {value}, where a PixArt has"):
        _of(pixart.config_from, {key: value})


def _of(read: Callable[..., Any], settings: dict[str, Any]) -> None:
    read({**settings, **(NEEDED if read is pixart.config_from else {})}, "there")
