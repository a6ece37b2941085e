"""The networks, one file a paper; none imports another."""

from flowbrush.backbones.dit import DiTConfig
from flowbrush.backbones.flux import FluxConfig
from flowbrush.backbones.jit import JiTConfig
from flowbrush.backbones.mmdit import MMDiTConfig
from flowbrush.backbones.pixart import PixArtConfig
from flowbrush.backbones.unet import UNetConfig

BackboneConfig = DiTConfig | FluxConfig | JiTConfig | MMDiTConfig | PixArtConfig | UNetConfig
