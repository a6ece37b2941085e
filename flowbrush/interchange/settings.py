"""Where the settings of an import are from: the file itself, its peer's scripts, or Flowbrush."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from flowbrush import config_io
from flowbrush.errors import UserError
from flowbrush.experiment import ExperimentConfig

ORIGINS_FILE = "imported.json"  # in an import's folder

# What an import decides about training and sampling, beside the network.
DECIDED = (
    "batch.size",
    "batch.flip",
    "flow.noise_scale",
    "flow.t_eps",
    "flow.times",
    "train.lr",
    "train.betas",
    "train.eps",
    "train.weight_decay",
    "train.warmup",
    "train.clip",
    "train.caption_dropout",
    "train.ema",
    "train.ema_warmup",
    "sampling",
)


class Arguments:
    """The arguments that a trainer keeps in its checkpoint, read one at a time.

    found: an argparse.Namespace, a dict, or None where the checkpoint has none.
    origins: where the fields are from that have been read, by dotted name.
    """

    def __init__(self, found: Any, what: str) -> None:
        self._found = found if isinstance(found, Mapping) else vars(found) if found else {}
        self._what, self.origins = what, dict[str, str]()

    def number(self, name: str, field: str, otherwise: float) -> float:
        """A setting that becomes `field`. Raises UserError where it is no finite number."""
        value = self._found.get(name)
        if value is None:
            return otherwise
        if type(value) not in (int, float) or not math.isfinite(value):
            raise UserError(f"{self._what}: its args say {name} {value!r}, which is no number")
        self.origins[field] = f"{name} in the checkpoint's args"
        return float(value)

    def choice(self, name: str, field: str, known: Mapping[Any, Any], otherwise: Any) -> Any:
        """What a setting, a word, stands for. Raises UserError where it is another word."""
        value = self._found.get(name)
        if value is None:
            return otherwise
        if value not in known:
            words = ", ".join(map(str, known))
            raise UserError(
                f"{self._what}: its args say {name} {value!r}, where Flowbrush has {words}"
            )
        self.origins[field] = f"{name} in the checkpoint's args"
        return known[value]

    def check(self, name: str, value: Any) -> None:
        """Raises UserError where a setting is there and is another one than the weights show."""
        found = self._found.get(name)
        if found is not None and found != value:
            raise UserError(f"{self._what}: its args say {name} {found}, its weights {value}")

    def require(self, name: str, value: Any) -> None:
        """Raises UserError where a setting is there and is another one than Flowbrush has."""
        if self._found.get(name, value) != value:
            raise UserError(
                f"{self._what}: its args say {name} {self._found[name]!r}, where Flowbrush has "
                f"{value!r} only"
            )

    def unused(self, names: Iterable[str], nothing: tuple[Any, ...]) -> list[str]:
        """Those of the settings that are there and mean something that Flowbrush has not."""
        found = {name: self._found.get(name) for name in names}
        return [f"{name} {value}" for name, value in found.items() if value not in nothing]


def origins_of(
    config: ExperimentConfig, peer: str, read: Mapping[str, str], own: Iterable[str] = ()
) -> dict[str, str]:
    """Where each setting that an import decides is from: `read`, Flowbrush for `own`, or `peer`."""
    decided = {name: peer for name in leaves(config) if name.startswith(DECIDED)}
    ours = {name: "Flowbrush" for name in decided if name.startswith(tuple(own) or ("-",))}
    return decided | ours | dict(read)


def leaves(config: ExperimentConfig) -> dict[str, Any]:
    """Every plain value in a config, by dotted name."""
    found: dict[str, Any] = {}

    def collect(value: Any, path: str) -> None:
        if isinstance(value, dict):
            for name, below in value.items():
                if name != "kind":
                    collect(below, f"{path}.{name}" if path else name)
        else:
            found[path] = value

    collect(config_io.to_json(config), "")
    return found


def told(config: ExperimentConfig, origins: Mapping[str, str]) -> list[str]:
    """The settings in lines, those of one origin together."""
    values, grouped = leaves(config), dict[str, list[str]]()
    for name, origin in sorted(origins.items()):
        origin = "the checkpoint's args" if origin.endswith("the checkpoint's args") else origin
        grouped.setdefault(origin, []).append(f"{name} {_said(values[name])}")
    return [f"from {origin}: {', '.join(fields)}" for origin, fields in grouped.items()]


def _said(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
