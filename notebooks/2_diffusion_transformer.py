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
from flowbrush.data.source import all_pictures
from flowbrush.evaluate.intervals import of_share
from flowbrush.evaluate.metrics import fid, precision, recall
from flowbrush.flow.path import to_velocity
from flowbrush.learn.digits import train_reader
from flowbrush.learn.drawing import BLUE, grid
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
# 3 x 7 x 7 = 147 numbers. One linear layer squeezes it to 64 numbers (the `bottleneck`), a second
# brings those to 128, the width of the transformer. At the other end a linear layer and
# `unpatchify` put the picture together again. One more token, the label, says what to paint: here
# it is always "a digit".

# %%
digits = IdxConfig().build(size=28)  # 5,000 real digits, as in step 1
real = all_pictures(digits)
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
# of 16 x 16 (ours is 4 x 4, but a finer one shows more). Half of the code is for the column and
# half for the row, so places in the same row or column share half of it: those are the two bands.

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
plt.show()

# %% [markdown]
# Our network also takes the numbers of each query and key in pairs, and *turns* each pair, as a
# point in the plane, by an angle that grows with the row or the column (rotary positions:
# `rotary_2d` in [layers/attention.py](../flowbrush/backbones/layers/attention.py)). The product of
# a query and a key then knows only the difference of their angles: attention sees how far apart
# two tokens are, and which way.
#
# ## A block: attention, feed-forward, and the time
#
# A block lets the tokens look at each other (attention), then works on each one alone
# (feed-forward). The time must have a say in both, since a picture that is nearly done wants other
# work than one that is nearly noise. It is made into a vector $c$, to which that of the label is
# added. In a diffusion transformer $c$ acts by *modulation* (adaLN-Zero, Peebles & Xie 2023): a
# linear layer makes of it a shift, a scale and a gate for each half of the block, all three vectors
# as wide as a token,
#
# $$x \leftarrow x + \text{gate} \cdot
# f\big(\text{norm}(x) \cdot (1 + \text{scale}) + \text{shift}\big)$$
#
# where $f$ is attention or feed-forward, and the dots multiply number by number. Here it is, from
# [backbones/jit.py](../flowbrush/backbones/jit.py):

# %%
print(inspect.getsource(modulate))
print(inspect.getsource(jit.Block.forward))

# %% [markdown]
# The linear layer that makes shifts, scales and gates begins at zero. So at first every gate is
# zero and **a new block passes its tokens on unchanged**, however deep the network is; training
# opens the gates bit by bit. That is the "Zero", and it makes deep networks easy to start. We try
# it with random numbers for the 16 + 1 tokens and for $c$:

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
# the **data**, and compute the velocity from it:
#
# $$v = \frac{\text{data} - x_t}{1 - t}$$
#
# (Put $x_t = t \cdot \text{data} + (1 - t) \cdot \text{noise}$ into it to see that this is right.)
# Now the noise comes from $x_t$ itself, past the network. The flow and the solver stay as they
# were, and the loss is still that of the velocity; near $t = 1$ the code divides by no less than
# `t_eps`. Such a transformer is a *JiT* ("just image transformers"):

# %%
print(inspect.getsource(to_velocity))
print(config.backbone, config.flow, sep="\n\n")

# %% [markdown]
# The times of training differ from step 1 too. There all were equally likely; here $t$ is the
# sigmoid of a normal number of mean -0.6, so it is more often in the middle than at the ends, and
# a little nearer to the noise. So *two* things have changed: the network (with its learning rate),
# and its `flow`, that is what it predicts, and at which times. We shall have to tell them apart
# below.
#
# ## Equal computation
#
# To compare two networks fairly, each must be given the same effort. Their sizes, and the numbers
# of pictures they saw, do not say how much was computed. FLOPs do: two for each multiplication and
# its addition. They are counted on PyTorch's `meta` device, where tensors have a shape and no
# numbers ([plan/flops.py](../flowbrush/plan/flops.py)). Learning from a picture costs three times
# the forward pass, since backward is twice as much as forward.


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
# Above the U-Net's digits, below the transformer's. Each column begins from the same noise, and
# often ends in nearly the same digit: the data and the straight paths alone lay down the field, and
# so which noise leads where; the networks only learn it, each in its own way.

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
# * **Is it a digit?** The share of pictures that it is *sure* of: it reads them with more than 95 %
#   confidence.
# * **Are they like the real ones, all in all?** Its last layer but one turns a picture into 128
#   numbers, the *features*. The *Fréchet distance* compares the mean $\mu$ and the covariance
#   $\Sigma$ of the features of painted and real pictures; 0 is best. With the features of the
#   Inception network it is the well-known FID.
#
# $$d = \|\mu_1 - \mu_2\|^2 +
# \mathrm{Tr}\left(\Sigma_1 + \Sigma_2 - 2 (\Sigma_1 \Sigma_2)^{1/2}\right)$$
#
# *Precision* and *recall* split the same question in two: the share of painted pictures whose
# features lie among those of the real ones (no farther from one of them than its third nearest real
# neighbour is), and the share of real ones that lie among the painted. The first line judges 1,000
# real digits by the other 4,000, and shows how good a figure can be.

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
# does: the U-Net of step 1 with the transformer's `flow`, so that it predicts the data, at the
# transformer's times, for the same FLOPs again.

# %% tags=["cover"]
name = "U-Net, same flow"
painters[name] = learned(replace(unet, name="learn-2-unet-same-flow", flow=config.flow))
painted[name] = painters[name].generate(["a digit"] * count)
distances[name] = judged(name, painted[name])
grid(torch.cat([pictures[:20] for pictures in painted.values()]), columns=20)

# %%
_, axes = plt.subplots(figsize=(7, 2.4), layout="constrained")
for place, one in enumerate(reversed(distances.values())):
    axes.plot([one.low, one.high], [place, place], color=BLUE, linewidth=4, alpha=0.4)
    axes.plot(one.value, place, "o", color=BLUE)
axes.set_yticks(range(len(distances)), reversed(distances))
axes.set(xlabel="Fréchet distance to real digits (less is better), with its 95 % interval")
axes.set_xlim(left=0)
axes.grid(alpha=0.3, axis="x")

# %% [markdown]
# For equal FLOPs the transformer's digits are nearer to the real ones than the U-Net's of step 1: a
# distance of 10.1 (9.2 to 11.1) against 12.0 (11.1 to 12.8). But the third run is better still,
# with 7.5 (6.8 to 8.2): what helped was the `flow`, not the network. Had we stopped after two runs,
# we should have praised the wrong change. And the `flow` is two changes again, what is predicted
# and at which times. Exercise 4 tells them apart, and it is worth the wait.
#
# With the same `flow`, the U-Net is ahead. Convolutions know from the start that neighbours belong
# together, and a transformer has to learn it; its turn comes with more data, more computation and
# larger pictures.
#
# Two words of caution. The intervals know only that 1,000 pictures are a sample: each network was
# trained once, and another training would move its point too. And FLOPs are not seconds: the
# transformer took twice the time for them, since so small a network spends much of it between its
# computations.
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
plt.show()

# %% [markdown]
# The gates open widest near the noise, and wider in the later blocks than in the first. Does a wide
# gate make an important block? Exercise 3 tries it out.
#
# ## Exercises
#
# **1. Lost places** (a minute). The network calls `sincos_2d` and `rotary_2d` by their names in the
# module `jit`, so you can take the places away from a network that was trained with them, and paint
# again: without one, without the other, without both. Which of the two does the network need more?
# What does `judged` say, and which of its figures would have misled you, had you seen no other?
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
# # and then sincos_2d, unturned; and nowhere, unturned
# jit.sincos_2d, jit.rotary_2d = nowhere, rotary_2d
# pictures = painters["transformer"].generate(["a digit"] * 1000)
# judged("no sines", pictures)
# grid(pictures[:20], columns=20)
# ```
#
# Bring them back with `jit.sincos_2d, jit.rotary_2d = sincos_2d, rotary_2d`.
#
# <details><summary>Answer</summary>
#
# Without the sines and cosines the digits fray (distance 23): attention still knows how far apart
# two tokens are. Without the turning almost nothing but black is left (some 175), and without both
# too (some 165): this network had come to rely on it. Yet the reader is *sure* of nearly all black
# squares (95 to 99 %), since it never learned to say "no digit", and their precision is 0.85 or
# more, far above any painter's. By either figure, black squares would have won. The distance and
# the recall, 0.00, are not fooled.
#
# </details>
#
# **2. Smaller patches** (seconds). With patches of 4 there are 49 tokens and not 16, and the label
# as before. Count by hand what the four blocks cost. A block has $4 d^2$ weights in attention and
# $8 d^2$ in feed-forward, where $d$ is 128; each token meets all of them, at two FLOPs each. For
# each pair of tokens, attention multiplies a query by a key and a value by its weight, $d$ numbers
# both times. Compare with
# `flops(replace(config, backbone=replace(config.backbone, patch=4)))`. How many pictures could such
# a network see for the same total as the U-Net?
#
# <details><summary>Answer</summary>
#
# $12 d^2 \cdot 2 \cdot 50 = 19.7$ million in a block; the products of queries and keys, and of
# weights and values, add $4 \cdot 50^2 d = 1.3$ million: 84 million in four blocks. `flops` says
# 86.4; the rest is patches, output and modulation. With patches of 7 it was 29.4, so only a third
# of the pictures are left, some 55,500. The products grow with the square of the number of tokens:
# here they are still small, but not in large pictures, and that is what
# [step 5](5_latents.ipynb) is about.
#
# </details>
#
# **3. A missing block** (a minute). A block whose modulation is zero passes its tokens on
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
# Distances of about 40, 45, 60 and 45 without the first, second, third and fourth block, where the
# whole network has 10. All are missed. Without the first or the second there are strokes in wrong
# places; without the third, scraps; without the fourth, fat digits with some noise left. By the
# distance, the third is missed most, although the gates of the fourth's attention open widest: how
# much a block says is not how much depends on it.
#
# </details>
#
# **4. Half of the flow** (4 minutes). The third run changed the prediction *and* the times. Change
# one of them alone, and you have all four pairs:
#
# ```python
# halves = {
#     "only-times": replace(unet.flow, times=config.flow.times),
#     "only-prediction": replace(unet.flow, prediction="data"),
# }
# for name, flow in halves.items():
#     painter = learned(replace(unet, name=name, flow=flow))
#     judged(name, painter.generate(["a digit"] * 1000))
# ```
#
# Which of the two made the U-Net better? Is what the text says about predicting the data wrong,
# then?
#
# <details><summary>Answer</summary>
#
# | U-Net's distance | step 1's times | the transformer's times |
# |---|---|---|
# | predicts the velocity | 12.0 (11.1 to 12.8) | 8.4 (7.6 to 9.1) |
# | predicts the data | 13.4 (12.5 to 14.2) | 7.5 (6.8 to 8.2) |
#
# The times did it, with either prediction: most likely because equal ones spend much on pictures
# that are nearly done, where little is left to decide. What is predicted moves this network by
# little, once to the worse and once to the better. The text spoke of networks *of patches*, whose
# bottleneck the noise cannot pass; a U-Net has none. Exercise 5 tries one.
#
# </details>
#
# **5. The missing corner** (4 minutes). We have two networks and two predictions, and one of the
# four pairs is not measured: the transformer that predicts the velocity. Train it, and for
# comparison the one that predicts the data, at the same times and each on 40,000 pictures:
#
# ```python
# def corner(name, **changes):
#     short = replace(config.train, pictures=40_000)
#     painter = learned(replace(config, name=name, train=short, **changes))
#     pictures = painter.generate(["a digit"] * 1000)
#     judged(name, pictures)
#     return grid(pictures[:20], columns=20)
#
# corner("short-velocity", flow=replace(config.flow, prediction="velocity"))
# ```
#
# and, in a cell of its own, `corner("short-data")`.
#
# What is wrong with the first pictures? The loss of that network ends at 0.71 (the last line of
# `runs/short-velocity/journal.jsonl`) and can never come below 0.56: why? Would it help to let
# all 147 numbers pass, with `backbone=replace(config.backbone, bottleneck=147)` besides? (A new run
# needs a new name.)
#
# <details><summary>Answer</summary>
#
# The digits are there, but their noise stays: distance 130, against 25 when the data is predicted.
# Only 64 of each token's 147 directions pass the bottleneck. The noise in the other 83 has variance
# 1 and does not depend on anything that the network sees, so it cannot say it, nor take it away:
# its loss, a mean over the 147, stays above $83 / 147 = 0.56$. With a bottleneck of 147 the loss
# falls to 0.33 and the distance to 82, but the tokens are still only 128 wide, for the noise and
# all the rest. When the data is predicted, a wider bottleneck makes hardly any difference (23
# against 25). The U-Net can do either: its skips take every pixel past all that is narrow.
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
