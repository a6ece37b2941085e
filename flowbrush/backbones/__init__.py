"""The networks, one file a paper; none imports another."""

from flowbrush.backbones.dit import DiTConfig
from flowbrush.backbones.jit import JiTConfig

BackboneConfig = DiTConfig | JiTConfig
