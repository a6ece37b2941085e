"""Every setting of a scheduler that is read has its place, and diffusers' own default passes."""

import inspect
from typing import Any

import diffusers
import pytest

from flowbrush.errors import UserError
from flowbrush.interchange.schedulers import (
    FLOW_CLASSES,
    PIXART_CLASSES,
    Settings,
    check_scheduler,
)

CLASSES = FLOW_CLASSES | PIXART_CLASSES
EULER_NAME = "FlowMatchEulerDiscreteScheduler"
OTHER = {bool: True, int: 3, str: "another", float: 0.5, type(None): 0.1}


def defaults(name: str) -> dict[str, Any]:
    signature = inspect.signature(getattr(diffusers, name).__init__)
    return {p.name: p.default for p in signature.parameters.values() if p.name != "self"}


def refusal(name: str, settings: dict[str, Any]) -> str:
    with pytest.raises(UserError) as error:
        check_scheduler({"_class_name": name, **settings}, CLASSES, "there")
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(("name", "known"), CLASSES.items(), ids=CLASSES)
def test_every_setting_of_diffusers_has_its_place_and_its_default_is_taken(
    name: str, known: Settings
) -> None:
    there = defaults(name)
    listed = [*known.followed, *known.idle, *known.only]
    assert len(set(listed)) == len(listed)
    assert set(there) <= set(listed)
    assert known.only == {key: there[key] for key in known.only}
    check_scheduler({"_class_name": name, "_diffusers_version": "1", **there}, CLASSES, "there")


@pytest.mark.parametrize(
    ("name", "key"),
    [(name, key) for name, known in CLASSES.items() for key in known.only],
)
def test_a_setting_that_gives_other_images_is_refused_by_name(name: str, key: str) -> None:
    default = CLASSES[name].only[key]
    other = not default if isinstance(default, bool) else OTHER[type(default)]
    assert f"scheduler: {key} is {other!r}, which is not followed" in refusal(name, {key: other})


def test_settings_that_a_class_has_not_and_other_classes_are_refused() -> None:
    assert "new_law is 'cubic', and" in refusal(EULER_NAME, {"new_law": "cubic"})
    assert "its scheduler is LCMScheduler, which is not followed" in refusal("LCMScheduler", {})
    check_scheduler({}, CLASSES, "there")
