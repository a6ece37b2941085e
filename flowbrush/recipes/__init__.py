"""Recipes: functions that return an experiment. Choices, no code."""

import runpy
from collections.abc import Callable
from pathlib import Path

from flowbrush.autoencoding import AutoencoderExperiment, Experiment
from flowbrush.config_io import check_finite
from flowbrush.errors import UserError, nearest
from flowbrush.experiment import ExperimentConfig
from flowbrush.recipes.autoencoder import emoji_autoencoder, folder_autoencoder
from flowbrush.recipes.coyo import coyo, coyo_clip_t5, coyo_t5
from flowbrush.recipes.dit import sit_b2, sit_l2, sit_s2, sit_xl2
from flowbrush.recipes.emoji import emoji, emoji_all, emoji_latent, emoji_variants
from flowbrush.recipes.families import flux_small, mmdit_small, pixart_small
from flowbrush.recipes.folder import folder
from flowbrush.recipes.jax_flow import (
    jax_flow_big,
    jax_flow_debug,
    jax_flow_flux,
    jax_flow_large,
    jax_flow_semilarge,
    jax_flow_text,
    jax_flow_xlarge,
)
from flowbrush.recipes.jaxfm import jaxfm_stage1, jaxfm_stage2
from flowbrush.recipes.jit import jit_b16, jit_b32, jit_h16, jit_h32, jit_l16, jit_l32
from flowbrush.recipes.jit_text import (
    jit_b16_text,
    jit_b32_text,
    jit_h16_text,
    jit_h32_text,
    jit_l16_text,
    jit_l32_text,
)
from flowbrush.recipes.learn import (
    learn_1_flow,
    learn_2_transformer,
    learn_3_guidance,
    learn_4_text,
    learn_5_autoencoder,
    learn_5_latent,
    learn_5_latent_128,
    learn_5_pixels,
)
from flowbrush.recipes.mnist import mnist
from flowbrush.recipes.shapes import shapes

RECIPES: dict[str, Callable[[], Experiment]] = {
    "emoji": emoji,
    "emoji-all": emoji_all,
    "emoji-latent": emoji_latent,
    "emoji-variants": emoji_variants,
    "shapes": shapes,
    "mnist": mnist,
    "folder": folder,
    "emoji-autoencoder": emoji_autoencoder,
    "folder-autoencoder": folder_autoencoder,
    "flux-small": flux_small,
    "mmdit-small": mmdit_small,
    "pixart-small": pixart_small,
    "jit-b16": jit_b16,
    "jit-b32": jit_b32,
    "jit-l16": jit_l16,
    "jit-l32": jit_l32,
    "jit-h16": jit_h16,
    "jit-h32": jit_h32,
    "jit-b16-text": jit_b16_text,
    "jit-b32-text": jit_b32_text,
    "jit-l16-text": jit_l16_text,
    "jit-l32-text": jit_l32_text,
    "jit-h16-text": jit_h16_text,
    "jit-h32-text": jit_h32_text,
    "sit-s2": sit_s2,
    "sit-b2": sit_b2,
    "sit-l2": sit_l2,
    "sit-xl2": sit_xl2,
    "jax-flow-debug": jax_flow_debug,
    "jax-flow-big": jax_flow_big,
    "jax-flow-semilarge": jax_flow_semilarge,
    "jax-flow-large": jax_flow_large,
    "jax-flow-xlarge": jax_flow_xlarge,
    "jax-flow-text": jax_flow_text,
    "jax-flow-flux": jax_flow_flux,
    "coyo": coyo,
    "coyo-t5": coyo_t5,
    "coyo-clip-t5": coyo_clip_t5,
    "jaxfm-stage1": jaxfm_stage1,
    "jaxfm-stage2": jaxfm_stage2,
    "learn-1-flow": learn_1_flow,
    "learn-2-transformer": learn_2_transformer,
    "learn-3-guidance": learn_3_guidance,
    "learn-4-text": learn_4_text,
    "learn-5-autoencoder": learn_5_autoencoder,
    "learn-5-latent": learn_5_latent,
    "learn-5-latent-128": learn_5_latent_128,
    "learn-5-pixels": learn_5_pixels,
}


def recipe(name: str) -> Experiment:
    """The config of that name, or of a function in a file of one's own: `my_runs.py:night3`.

    Raises UserError, with the nearest name, where there is none.
    """
    if ".py:" in name:
        return _from_file(*name.rsplit(":", 1))
    if name not in RECIPES:
        raise UserError(
            f"'{name}' is neither a run's folder nor a recipe that `flowbrush recipes` "
            f"lists{nearest(name, RECIPES)}"
        )
    return RECIPES[name]()


def _from_file(path: str, function: str) -> Experiment:
    if not Path(path).is_file():
        raise UserError(f"{path}: no such file")
    recipes = runpy.run_path(path)
    if not callable(recipes.get(function)):
        raise UserError(f"{path}: no function '{function}' in it{nearest(function, recipes)}")
    config = recipes[function]()
    if not isinstance(config, ExperimentConfig | AutoencoderExperiment):
        raise UserError(
            f"{path}:{function} returned {type(config).__name__}, not an ExperimentConfig or an "
            "AutoencoderExperiment"
        )
    check_finite(config, f"{path}:{function}")
    return config
