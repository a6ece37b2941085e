# %% [markdown]
# # 2 · Diffusion transformer
#
# Almost every large text-to-image model of today is a transformer: it cuts the picture into
# patches and treats them like the words of a sentence. You take one apart, train it for exactly as
# much computation as the convolutional network of step 1, and measure which of the two paints
# better digits.
#
# **You will learn**
# * how a picture becomes tokens, and how a token knows its place;
# * how the time steers every block (adaLN-Zero), and why a new block does nothing at all;
# * why a network of patches had better predict the data than the velocity;
# * how to count FLOPs, compare two networks fairly, and measure what they paint.
#
# **Time:** 8 minutes on two CPU cores, 2 of them for step 1's network if it is not there.
#
# **Before:** [1 · Flow matching](1_flow_matching.ipynb) ·
# **Next:** [3 · Classes and guidance](3_classes_and_guidance.ipynb)

# %%
import inspect
import time
from dataclasses import replace

import matplotlib.pyplot as plt
import torch
from einops import rearrange

from flowbrush import TextToImage, recipe
from flowbrush.backbones import jit
from flowbrush.backbones.layers.embeddings import patchify, sincos_2d
from flowbrush.backbones.layers.modulation import modulate
from flowbrush.data import IdxConfig
from flowbrush.data.source import stacked
from flowbrush.evaluate.intervals import of_share
from flowbrush.evaluate.metrics import fid, precision, recall
from flowbrush.flow.path import to_velocity
from flowbrush.learn.digits import train_reader
from flowbrush.learn.drawing import grid
from flowbrush.learn.session import begin, trained
from flowbrush.plan.flops import LEARNING, forward_flops, skeleton
from flowbrush.shapes import ConditionShapes, Shapes

quick = False  # True: a few steps only, to see that everything runs
begin(quick)

# %% [markdown]
# ## A picture as tokens
#
# `patchify` ([layers/embeddings.py](../flowbrush/backbones/layers/embeddings.py)) cuts a picture of
# 28 x 28 pixels into squares of 7 x 7. Each of the 16 squares becomes a *token*: a vector of
# 3 x 7 x 7 = 147 numbers. Linear layers squeeze it to 64 numbers (the `bottleneck`) and bring those
# to the width of the transformer, 128. At the other end another linear layer and `unpatchify` put
# the picture together again.

# %%
digits = IdxConfig().build(size=28)  # 5,000 real digits, as in step 1
real = stacked([digits[i].picture for i in range(len(digits))])
picture = real[4100:4101]
tokens = patchify(picture, 7)
print(f"{tuple(picture.shape)} -> {tuple(tokens.shape)}: (batch, tokens, numbers in each)")
grid(rearrange(tokens[0], "n (c p q) -> n c p q", p=7, q=7), columns=4, enlarged=5)

# %% [markdown]
# ## Where a token is
#
# Attention looks at a *set* of tokens; it would not notice if we shuffled them. So each token gets
# a vector added that says where it is: sines and cosines of its column and its row, at many
# wavelengths (`sincos_2d`, which needs no learning). A good position code makes neighbours alike.
# Here is how similar (cosine) the code of one place, marked by a cross, is to all others, on a grid
# of 16 x 16:

# %%
side = 16
codes = torch.nn.functional.normalize(sincos_2d(side, side, 128, torch.device("cpu")), dim=1)
_, panels = plt.subplots(1, 4, figsize=(8, 2.3), layout="constrained")
for axes, (row, column) in zip(panels, [(0, 0), (3, 11), (8, 8), (15, 6)], strict=True):
    alike = codes @ codes[row * side + column]
    image = axes.imshow(alike.view(side, side), cmap="cividis", vmin=0, vmax=1)
    axes.plot(column, row, "x", color="black", markersize=8)
    axes.set(xticks=[], yticks=[], title=f"row {row}, column {column}")
plt.colorbar(image, ax=panels, label="similarity")
# %% [markdown]
# Our network also *turns* the queries and keys of attention by an angle that grows with the row and
# column (rotary positions: `rotary_2d` in
# [layers/attention.py](../flowbrush/backbones/layers/attention.py)), so that attention sees how far
# apart two tokens are.
#
# ## A block: attention, feed-forward, and the time
#
# A block lets the tokens look at each other (attention), then works on each one alone
# (feed-forward). The time, as a vector $c$, must have a say in both, since a picture that is nearly
# done wants other work than one that is nearly noise. In a diffusion transformer it does so by
# *modulation* (adaLN-Zero, Peebles & Xie 2023): from $c$ a linear layer makes a shift, a scale and
# a gate for each half of the block,
#
# $$x \leftarrow x + \text{gate} \cdot
# f\big(\text{norm}(x) \cdot (1 + \text{scale}) + \text{shift}\big)$$
#
# where $f$ is attention or feed-forward. Here it is, from
# [backbones/jit.py](../flowbrush/backbones/jit.py):

# %%
print(inspect.getsource(modulate))
print(inspect.getsource(jit.Block.forward))

# %% [markdown]
# The linear layer that makes shifts, scales and gates begins at zero. So at first every gate is
# zero and **a new block passes its tokens on unchanged**, however deep the network is; training
# opens the gates bit by bit. That is the "Zero", and it makes deep networks easy to start:

# %%
config = recipe("learn-2-transformer")
shapes = Shapes(channels=3, height=28, width=28, condition=ConditionShapes(labels=1))
network = config.backbone.build(shapes)
x, c = torch.randn(2, 17, 128), torch.randn(2, 128)
rotary = jit.rotary_2d(4, 4, 32, 1, x.device)
with torch.no_grad():
    change = max(float((block(x, c, rotary, None) - x).abs().max()) for block in network.blocks)
print(f"{len(network.blocks)} new blocks: the largest change to any token is {change}")

# %% [markdown]
# ## What to predict
#
# In step 1 the network predicted the velocity, $\text{data} - \text{noise}$. It contains the noise
# of every pixel: 147 independent numbers in each token, which a transformer would have to carry,
# unharmed, through a bottleneck of 64. Digits are much simpler than noise. *Back to basics: let
# denoising generative models denoise* (Li & He 2025) draws the conclusion: let the network predict
# the **data**, and compute the velocity from it,
#
# $$v = \frac{\text{data} - x_t}{1 - t}$$
#
# which changes nothing in the flow or the solver, and little in the loss: it is still taken of the
# velocity. Such a transformer is a *JiT* ("just image transformers"):

# %%
print(inspect.getsource(to_velocity))
print(config.backbone, config.flow, sep="\n\n")

# %% [markdown]
# `times` draws the moments of training more often in the middle than at the ends, a little nearer
# to the noise. So *two* things differ from step 1, the network and what it predicts (with its
# times). We shall have to tell them apart below.
#
# ## Equal computation
#
# To compare two networks fairly, each must be given the same effort. Their sizes, and the numbers
# of pictures they saw, do not say how much was computed. FLOPs do: two for each multiplication and
# its addition, counted on a network without memory for its weights
# ([plan/flops.py](../flowbrush/plan/flops.py)). Learning costs three times the forward pass.


# %%
def flops(config):
    """Of all its training."""
    once = forward_flops(skeleton(config.backbone, shapes), shapes)
    print(f"{config.name:20} {once / 1e6:6.1f} million FLOPs forward, a picture")
    return LEARNING * once * config.train.pictures


unet = recipe("learn-1-flow")
spent = [flops(unet), flops(config)]
print(f"in all {spent[0] / 1e12:.2f} and {spent[1] / 1e12:.2f} trillion", end=": ")
print(f"the transformer's are {100 * (spent[1] / spent[0] - 1):+.2f} % of the U-Net's apart")

# %% [markdown]
# A cheaper network may see more pictures for the same effort: `train.pictures` of the recipe was
# chosen so that the totals agree. Now both are trained (step 1 costs nothing if it is there
# already).


# %%
def learned(config):
    cpu, clock = time.process_time(), time.perf_counter()
    run = trained(config, quick)
    cpu, clock = time.process_time() - cpu, time.perf_counter() - clock
    print(f"{config.name}: {cpu:.0f} s of CPU time, {clock:.0f} s by the clock")
    return TextToImage.load(run)


painters = {"U-Net": learned(unet), "transformer": learned(config)}

# %% [markdown]
# ## Side by side
#
# Above the U-Net's digits, below the transformer's. Each column begins from the same noise.

# %%
count = 20 if quick else 1000
painted = {name: one.generate(["a digit"] * count) for name, one in painters.items()}
grid(torch.cat([pictures[:20] for pictures in painted.values()]), columns=20)

# %% [markdown]
# ## Measuring it
#
# An eye is easily convinced, so we count too. A small network learns to read digits (it needs half
# a minute, and its accuracy is measured on digits that it has not seen). It judges in two ways:
#
# * **Is it a digit?** The share of pictures that it reads with more than 95 % confidence.
# * **Are they like the real ones, all in all?** Its 128 features of a picture say how the picture
#   looks to it. The *Fréchet distance* compares the mean $\mu$ and the covariance $\Sigma$ of the
#   features of painted and real pictures; 0 is best. With the features of the Inception network it
#   is the well-known FID.
#
# $$d = \|\mu_1 - \mu_2\|^2 +
# \mathrm{Tr}\left(\Sigma_1 + \Sigma_2 - 2 (\Sigma_1 \Sigma_2)^{1/2}\right)$$
#
# Precision and recall split the same question in two: the share of painted pictures that lie among
# the real ones, and the share of real ones that lie among the painted.

# %%
trained_reader = train_reader(digits, epochs=1) if quick else train_reader(digits)
reader = trained_reader.reader
print(f"reads {trained_reader.accuracy:.1%} of 1,000 unseen digits right")


@torch.inference_mode()
def judged(name, pictures, among=real):
    seen, known = reader.features(pictures), reader.features(among)
    sure = of_share(reader(pictures).softmax(dim=1).amax(dim=1) > 0.95)
    distance = fid(seen, known, "digit reader", name="distance")
    covered = [measure(seen, known, "").value for measure in (precision, recall)]
    print(
        f"{name:18} distance {distance.value:5.1f} ({distance.low:.1f} to {distance.high:.1f})  "
        f"sure {sure[0]:.0%} ({sure[1]:.0%} to {sure[2]:.0%})  "
        "precision {:.2f}  recall {:.2f}".format(*covered)
    )
    return distance


shuffled = real[torch.randperm(len(real), generator=torch.Generator().manual_seed(0))]
distances = {"real digits": judged("real digits", shuffled[:count], shuffled[count:])}
distances |= {name: judged(name, pictures) for name, pictures in painted.items()}

# %% [markdown]
# ## Which of the two changes did it?
#
# Two things were changed at once, so the comparison does not say which one helped. The missing run
# does: the U-Net of step 1 with the transformer's `flow`, that is predicting the data, for the same
# FLOPs again.

# %%
name = "U-Net, data"
painters[name] = learned(replace(unet, name="learn-2-unet-data", flow=config.flow))
painted[name] = painters[name].generate(["a digit"] * count)
distances[name] = judged(name, painted[name])
grid(torch.cat([pictures[:20] for pictures in painted.values()]), columns=20)

# %%
_, axes = plt.subplots(figsize=(7, 2.4), layout="constrained")
for place, one in enumerate(reversed(distances.values())):
    axes.plot([one.low, one.high], [place, place], color="#0072B2", linewidth=4, alpha=0.4)
    axes.plot(one.value, place, "o", color="#0072B2")
axes.set_yticks(range(len(distances)), reversed(distances))
axes.set(xlabel="Fréchet distance to real digits (less is better), with its 95 % interval")
axes.set_xlim(left=0)
axes.grid(alpha=0.3, axis="x")

# %% [markdown]
# For equal FLOPs the transformer's digits are nearer to the real ones than the U-Net's of step 1: a
# distance of 10.1 (9.2 to 11.1) against 12.0 (11.1 to 12.8). But the third run is better still,
# with 7.5: what helped was predicting the data. At this size, and on pictures so small,
# convolutions know from the start that neighbours belong together, and a transformer has to learn
# it. Its turn comes with more data, more computation and larger pictures. Had we stopped after two
# runs, we should have praised the wrong change.
#
# FLOPs are not seconds either: the transformer took twice the time for them, since so small a
# network spends much of it between its computations.
#
# ## What the gates have learned
#
# A last look inside: how wide do the gates of each block open, as the picture goes from noise to
# data? They began at zero, at every time.

# %%
painter = painters["transformer"]
times = torch.linspace(0, 1, 50)
backbone = painter.denoiser.backbone
with torch.no_grad():
    c = backbone.vector(times, painter.encoder(["a digit"]).expanded(50))
    gates = [block.modulation(c) for block in backbone.blocks]
_, panels = plt.subplots(1, 2, figsize=(8, 2.8), sharey=True, layout="constrained")
for axes, part, title in zip(panels, (2, 5), ("attention", "feed-forward"), strict=True):
    for i, parts in enumerate(gates):
        colour = plt.get_cmap("viridis")(i / len(gates))
        axes.plot(
            times, parts[part].float().abs().mean(dim=1), color=colour, label=f"block {i + 1}"
        )
    axes.set(title=f"gates of {title}", xlabel="t: noise to data")
panels[0].set_ylabel("mean |gate|")
panels[1].legend(fontsize=8)

# %% [markdown]
# The gates open widest near the noise, and in the later blocks: that is where most is decided.
#
# ## Exercises
#
# **1. Lost places** (half a minute). The network calls `sincos_2d` and `rotary_2d` by their names in
# the module `jit`, so you can take the places away from a network that was trained with them, one
# way or both, and paint again. What does each give? What does `judged` say, and which of its
# figures would you not have trusted alone?
#
# ```python
# from flowbrush.backbones.layers.attention import rotary_2d
#
# def nowhere(rows, columns, width, device):
#     return torch.zeros(rows * columns, width, device=device)
#
# def unturned(*arguments):
#     cos, sin = rotary_2d(*arguments)
#     return jit.Rotary(torch.ones_like(cos), torch.zeros_like(sin))
#
# jit.rotary_2d = unturned  # and then: jit.sincos_2d = nowhere
# pictures = painters["transformer"].generate(["a digit"] * 1000)
# judged("not turned", pictures)
# grid(pictures[:20], columns=20)
# ```
#
# Bring them back with `jit.rotary_2d, jit.sincos_2d = rotary_2d, sincos_2d`.
#
# <details><summary>Answer</summary>
#
# Without the sines and cosines the digits fray (distance 22.7): attention still knows how far apart
# two tokens are. Without the turning nothing but black is left (171), and without both too (162):
# this network had come to rely on it. The reader is *sure* of 97 % of the black squares: it never
# learned to say "no digit". Had we measured only that, black squares would have won. The distance
# and the recall, 0.00, are not fooled.
#
# </details>
#
# **2. Smaller patches** (seconds). With patches of 4 there are 49 tokens and not 16. Count by hand
# what a block costs: per token, $4 d^2$ weights in attention, $8 d^2$ in feed-forward, two FLOPs for
# each, where $d$ is 128; then the products of each token with each other, and compare with
# `flops(replace(config, backbone=replace(config.backbone, patch=4)))`. (The label adds one token to
# both.) How many pictures could such a network see for the same total?
#
# <details><summary>Answer</summary>
#
# $12 d^2 \cdot 2 \cdot 50 = 19.7$ million in a block; the products of queries and keys, and of weights
# and values, add $4 \cdot 50^2 d = 1.3$ million: 84 million in four blocks. `flops` says 86.4; the rest
# is patches, output and modulation. With patches of 7 it was 29.4, so only a third of the pictures
# are left: 55,486. The products grow with the square of the tokens, and that is what
# [step 5](5_latents.ipynb) is about.
#
# </details>
#
# **3. A missing block** (half a minute). A block whose modulation is zero passes its tokens on
# unchanged, so any block can be taken out:
#
# ```python
# painter = learned(config)
# linear = painter.denoiser.backbone.blocks[0].modulation.linear
# with torch.no_grad():
#     linear.weight.zero_()
#     linear.bias.zero_()
# ```
#
# Judge and look at 1,000 pictures of it, and do the same with each other block (begin with
# `learned(config)` every time). Is the block with the widest gates the one that is missed most?
#
# <details><summary>Answer</summary>
#
# Distances of 38, 45, 60 and 45 without the first, second, third and fourth block, where the whole
# network has 10. All are missed. Without the first there are strokes, in the wrong places; without
# the last, blurs with the noise not taken away. The widest gates, the fourth's, are not the most
# important ones: how much a block says is not how much depends on it.
#
# </details>
#
# **4. The missing corner** (2 minutes). We have two networks and two predictions, and one of the
# four pairs is not measured: the transformer that predicts the velocity. Train it, and for
# comparison the one that predicts the data, each on 40,000 pictures:
#
# ```python
# short = replace(config.train, pictures=40_000)
# painter = learned(replace(config, name="short-velocity", flow=unet.flow, train=short))
# pictures = painter.generate(["a digit"] * 1000)
# judged("velocity", pictures)
# grid(pictures[:20], columns=20)
# ```
#
# What is wrong with the pictures? Would a wider `bottleneck` help? (Why could 147 be enough?)
#
# <details><summary>Answer</summary>
#
# The digits are there, but their noise stays: distance 144, against 25 when the data is predicted.
# Only 64 of each token's 147 numbers pass the bottleneck. The network cannot say what the noise was
# in the other 83 directions, so it cannot take it away; its loss stays above
# $83 / 147 = 0.56$ (the journal ends at 0.72). With
# `backbone=replace(config.backbone, bottleneck=147)` nothing is lost at once, and the distance falls
# to 88, but the tokens are still only 128 wide. For the data it makes hardly any difference (23
# against 25). The U-Net could do either: its skips take every pixel past all that is narrow.
#
# </details>
#
# ## What changes at scale
#
# * **The block: nothing.** `flowbrush train jit-b16` has twelve of them, 768 wide, on patches of 16
#   pixels ([recipes/jit.py](../flowbrush/recipes/jit.py)); `sit-xl2` has 28 of
#   [backbones/dit.py](../flowbrush/backbones/dit.py), 1,152 wide, in latents.
# * **Equal computation** is how networks are compared in earnest as well:
#   [benchmarks/RESULTS.md](../benchmarks/RESULTS.md) has six at equal training FLOPs.
# * **Before you pay**, `flowbrush plan RECIPE` counts as above, and adds memory and time.
#
# Next: [3 · Classes and guidance](3_classes_and_guidance.ipynb), where you say which digit.
