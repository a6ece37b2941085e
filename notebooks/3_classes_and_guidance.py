# %% [markdown]
# # 3 · Classes and guidance
#
# [Step 2](2_diffusion_transformer.ipynb) paints digits, but nobody can say which. Here the network
# is told: first it learns what a class looks like, then *guidance* makes it listen. Guidance is
# one line of arithmetic, and it is why today's text-to-image models follow a prompt so closely.
#
# **You will learn**
# * how a class becomes a vector that a network can use;
# * how one network learns to paint with a class and without one: a tenth of the labels is dropped;
# * what guidance adds to a velocity, in pictures;
# * what it costs: the higher the scale, the more obedient, thick and alike the digits are;
# * at which times it matters, and how to measure that "a 7" gives a 7.
#
# **Time:** 4 minutes on two CPU cores.
#
# **Before:** [2 · Diffusion transformer](2_diffusion_transformer.ipynb) ·
# **Next:** [4 · Text](4_text.ipynb)

# %%
import inspect
from dataclasses import replace

import torch
from matplotlib import pyplot as plt

from flowbrush import TextToImage, recipe
from flowbrush.backbones.jit import JiT
from flowbrush.contact_sheet import contact_sheet
from flowbrush.data import IdxConfig
from flowbrush.data.source import all_pictures
from flowbrush.flow.guidance import Guided
from flowbrush.flow.path import interpolate
from flowbrush.learn.digits import train_reader
from flowbrush.learn.drawing import BLUE, grid
from flowbrush.learn.guidance import (
    Judge,
    Velocities,
    counted,
    draw_intervals,
    draw_rows,
    draw_scales,
    draw_velocities,
)
from flowbrush.learn.session import begin, trained
from flowbrush.randomness import uniform
from flowbrush.text import LabelsConfig

quick = False  # True: a few steps only, to see that everything runs
begin(quick)

# %% [markdown]
# ## A class is a vector
#
# Ten classes have ten numbers, `0` to `9`. There is one more, the number after the last: the
# *null label*, which says "no class given". That is all that
# [text/labels.py](../flowbrush/text/labels.py) does.

# %%
labels = LabelsConfig(names=tuple("0123456789")).build(torch.device("cpu"))
print("a 7, a 0, a 3:", labels(["7", "0", "3"]).label.tolist())
print("no class:     ", labels.null.label.tolist())

# %% [markdown]
# Inside the network the number $y$ looks up a row $E_y$ of a table of $10 + 1$ learned vectors. The
# row is added to the vector of the time, and the sum $c$ modulates every block (it scales and
# shifts what the block computes with), as in step 2, where the only label said nothing:
#
# $$c = \mathrm{time}(t) + E_y$$

# %%
print(inspect.getsource(JiT.vector))

# %% [markdown]
# (`pooled` is for text, and `None` here.) The network is a small
# [JiT](../flowbrush/backbones/jit.py) like step 2's. It says the class once more: $E_y$ stands
# beside the patches, now as four tokens, which they can attend to. As in step 2 it predicts the
# *data*, and the velocity follows from it.
#
# ## One network, two velocity fields
#
# Guidance needs two answers to the same noisy picture: the velocity towards *this class*,
# $v_y = v_\theta(x_t, t, y)$, and the one towards *any digit*,
# $v_\varnothing = v_\theta(x_t, t, \varnothing)$, where $\varnothing$ is the null label. Two
# networks would do. One is cheaper: while it trains, each label is replaced by the null label with
# a chance of one in ten, so that it learns both.

# %%
captions = list("0123456789" * 3)
dropped = uniform(0, "dropout", range(len(captions))) < 0.1  # a random number for each, seed 0
print("given:  ", *labels(captions).label.tolist())
print("learned:", *labels(captions).replaced_where(dropped, labels.null).label.tolist())

# %% [markdown]
# Each 10 was dropped. The training loop calls the same method, `replaced_where`
# ([condition.py](../flowbrush/condition.py), [train/loop.py](../flowbrush/train/loop.py)); the
# network is not told that a label is missing on purpose. Text is dropped in the same way. The share
# is a setting of the recipe, `train.caption_dropout`. Now train (most of this notebook's time):

# %%
run = trained(recipe("learn-3-guidance"), quick)
painter = TextToImage.load(run)

# %% [markdown]
# The same noise in each column. Above, the network is told nothing (`scale=0`; the next section
# says why it is called so). Below, it is asked for 0 to 9, twice (`scale=1`). No guidance yet.


# %%
def paint(each, **choices):
    """`each` digits of every class, `choices` of sampling apart from the recipe's."""
    sampling = replace(painter.config.sampling, **choices)
    return painter.generate(list("0123456789") * each, sampling)


grid(torch.cat([paint(2, scale=0), paint(2, scale=1)]), columns=20)

# %% [markdown]
# Most of the lower digits are what was asked for, but some are broken, and some are another digit.
#
# ## Guidance
#
# The difference of the two velocities is what the class *changes*. Guidance goes further that way
# ([Ho & Salimans 2022](https://arxiv.org/abs/2207.12598)):
#
# $$v = v_\varnothing + s\,(v_y - v_\varnothing)$$
#
# A scale of $s = 0$ ignores the class, $s = 1$ is the network as trained, and above 1 the class
# counts more than it does in the data. In the package `Guided` wraps a velocity field and is one
# itself, so no solver knows about it ([flow/guidance.py](../flowbrush/flow/guidance.py)).
# `interval`, in which `guided_at` looks up the time, comes below; `channels` is `None` here.

# %%
print(inspect.getsource(Guided.__call__))

# %% [markdown]
# Why does it work? On the straight path of step 1 the best velocity says where noisy pictures
# become more likely:
#
# $$v = \frac{x_t}{t} + \frac{1 - t}{t}\; \nabla_{x_t} \log p(x_t)$$
#
# For $v_y$ put $p(x_t \mid y)$ in the place of $p(x_t)$. By Bayes' rule the two differ by the
# factor $p(y \mid x_t) / p(y)$, and $p(y)$ has no gradient, so
#
# $$v_y - v_\varnothing = \frac{1 - t}{t}\; \nabla_{x_t} \log p(y \mid x_t)$$
#
# It is the direction in which a classifier that reads *noisy* digits would become surer of
# $y$, and nobody had to train one. Let us look. We take a real 4, mix it with noise at
# three times, and ask for a 9. On the right is what each velocity points at: where $x_t$ would end
# if it went straight on, $x_t + (1 - t)\,v$.

# %%
source = IdxConfig().build(28)
pictures = all_pictures(source)
space, field = painter.space, painter.denoiser


@torch.inference_mode()
def velocities(pictures, label, t, seed=0):
    """x_t of real digits, and its velocities without a class and with one."""
    data = space.normalize(space.compress(pictures), range(len(pictures)))
    noise = torch.randn(data.shape, generator=torch.Generator().manual_seed(seed))
    time = torch.full((len(data),), t)
    x_t = interpolate(data, noise, time)
    null = field(x_t, time, labels.null.expanded(len(data)))
    return x_t, null, field(x_t, time, labels([label] * len(data)))


four = pictures[[int((source.labels == 4).argmax())]]
rows = [Velocities(t, *(v[0] for v in velocities(four, "9", t))) for t in (0.1, 0.25, 0.5)]
draw_velocities(rows, scale=3)

# %% [markdown]
# In the velocities red is "brighter", blue "darker". At $t = 0.1$ the network sees hardly any
# digit. Without a class it points at a blur of several, with one at a blurred 9, and the difference
# draws the loop. A scale of 3 triples that. At $t = 0.25$ it can still bend the tip of the 4 over.
# At $t = 0.5$ the 4 is plain to see: asked for a 9, the network still says 4, and tripling so small
# a difference changes next to nothing.
#
# How far apart are the two pictures that $v_\varnothing$ and $v_y$ point at, over the whole way?
# We take 64 real 7s, and ask for a 7.

# %%
times = torch.linspace(0.01, 0.95, 4 if quick else 20).tolist()
sevens, apart = pictures[torch.from_numpy(source.labels == 7)][:64], []
for t in times:
    _, null, given = velocities(sevens, "7", t)
    apart.append(float((1 - t) * (given - null).square().mean().sqrt()))
plt.figure(figsize=(6, 2.6))
plt.plot(times, apart, color=BLUE)
plt.xlabel("t: noise on the left, data on the right")
plt.ylabel("with and without a class\n(RMS; black is -1, white 1)")
plt.gca().spines[["top", "right"]].set_visible(False)

# %% [markdown]
# The class matters early. By the time a digit can be seen, it is decided which one it will be.
#
# ## A judge
#
# To go on we need numbers. A small classifier learns to read digits
# ([learn/digits.py](../flowbrush/learn/digits.py)), and is tested on 1,000 that it has never seen.
# It cannot judge better than it reads. Its *features* are the 128 numbers before its last layer.

# %%
reader, accuracy = train_reader(source, epochs=1 if quick else 12)
judge = Judge(reader, source)
print(f"The reader reads {accuracy:.1%} of 1,000 real digits right.")

# %% [markdown]
# Of each set of painted digits we ask four things
# ([learn/guidance.py](../flowbrush/learn/guidance.py)):
# * **right**: the share that is read as the class that was asked for, with its 95 % interval in
#   brackets;
# * **white**: how many pixels are wholly white, divided by the same for real digits. Below 1,
#   strokes are thin or grey; above 1, they are too thick;
# * **spread**: how different two digits of one class are (the mean distance of their features),
#   divided by the same for real ones. Below 1, they are too much alike;
# * **distance**: the Fréchet distance, as in FID: how far the mean and the covariance of the
#   features of painted digits are from those of real ones. Less is better. With few digits it comes
#   out too large, so compare it only between sets of the same size.
#
# ## The slider
#
# Now turn the scale up, with the same noise in every column.

# %% tags=["cover"]
each = 2 if quick else 40
asked = torch.arange(10).repeat(each)
scales = [0, 1, 2, 3, 5, 7, 12]
at_scale = [paint(each, scale=scale) for scale in scales]
judged = [judge(painted, asked) for painted in at_scale]
draw_rows({f"scale {scale}": p[:10] for scale, p in zip(scales, at_scale, strict=True)}, judged)

# %%
for scale, own in zip(scales, judged, strict=True):
    print(f"scale {scale:2}: {own}")
draw_scales(scales[1:], judged[1:])

# %% [markdown]
# Three things happen at once:
# * Digits become **right**. Without guidance (scale 1) about one in six is not what was asked for;
#   at 3 all 400 are read as asked, though a stroke is broken here and there.
# * They become **thick and harsh**. At 3 they have nearly as many white pixels as real ones, from 5
#   on more. At 12 there is dirt on the black, and the 2 falls apart.
# * They become **alike**, from the first step on. At 3 two digits of a class differ three quarters
#   as much as real ones do.
#
# The Fréchet distance weighs all of it: lowest at 2, and from 5 on worse than without guidance.
# "Right" alone would not have noticed: it is the very thing that guidance pushes, so never look at
# it alone. The recipe takes 3: every digit is read right, and some variety is lost.
#
# ## Where in time guidance matters
#
# Nothing says that guidance must act all the time. `SamplingConfig.interval` limits it
# ([Kynkäänniemi et al. 2024](https://arxiv.org/abs/2404.07724)); outside of it, `Guided` asks the
# network once instead of twice, which is cheaper. Here is one scale, 4, in several intervals.
# *Passes* counts how often the network looked at each picture. The recipe's solver, Heun's, takes
# eight steps, at $t = 0, 1/8, \dots, 7/8$. It asks for two velocities in each, and for one in the
# last: 15 passes without guidance, 30 with it all the way.

# %%
intervals = [(0, 0), (0, 1), (0, 0.25), (0.25, 0.5), (0.5, 1), (0, 0.5), (0.25, 1)]
judged, passes = [], []
for interval in intervals:
    with counted(painter) as looks:
        judged.append(judge(paint(each, scale=4, interval=interval), asked))
    passes.append(looks.count / len(asked))
for interval, own in zip(intervals, judged, strict=True):
    print(f"{interval!s:12} {own}")
draw_intervals(intervals, judged, passes)

# %% [markdown]
# The first quarter alone makes nearly all digits right, for little more than half the passes. It
# also takes most of the variety: so early, guidance can still push any noise towards the same
# typical 7. The second quarter alone leaves the variety, and its digits are the nearest to real
# ones. In the second half the digit is decided, and guidance can only mend strokes.
#
# That is why `jit-b16` and its sisters guide only from $t = 0.1$ on, and `emoji` from 0.1 to 0.8.
#
# ## "A 7" gives a 7
#
# The promise of this step: 1,000 digits, 100 of each class, without guidance and with the recipe's
# scale of 3.

# %%
each = 2 if quick else 100
asked = torch.arange(10).repeat(each)
plain, guided = paint(each, scale=1), paint(each)
print(f"painted, scale 1: {judge(plain, asked)}")
print(f"painted, scale {painter.config.sampling.scale:g}: {judge(guided, asked)}")
print(f"real digits that the reader has never seen: {accuracy:.1%} read right")
grid(guided[7::10][:40], columns=20)

# %% [markdown]
# Here "a 7" was asked for forty times. And some digits that went wrong *without* guidance:

# %%
read = reader.read(plain)
wrong = (read != asked).nonzero().flatten().tolist()[:8]
said = [f"asked {asked[i]}, read {read[i]}" for i in wrong]
contact_sheet(plain[wrong], said, cell=90)

# %% [markdown]
# With guidance, painted digits are read *better* than real ones. That is no triumph: people write
# odd 7s, and guidance does not. It paints what a 7 surely is.
#
# ## Exercises
#
# **1. Anything but a 7** (10 seconds). A negative scale walks away from the class. Paint
# `painter.generate(["7"] * 100, replace(painter.config.sampling, scale=-1))` and look at it with
# `grid(..., columns=20)`. Which digits does the reader see
# (`reader.read(...).bincount(minlength=10)`)?
#
# <details><summary>Answer</summary>
#
# No 7 among 100. 35 are read as 8, 19 as 2, 16 as 5, one as 1 and two as 9: what shares strokes
# with a 7 is avoided as well. Many are no digit at all, but the reader must name one. "Negative
# prompts" are this idea: the text to walk away from stands in the place of the null label, and the
# scale is positive.
#
# </details>
#
# **2. Half a 3, half an 8** (10 seconds). Classes are vectors, so there are vectors between
# them. The table is `w = painter.denoiser.backbone.label.weight`. Put the mean of two rows into row
# 3 with `w[3] = (w[3] + w[8]) / 2` under `torch.no_grad()`, and look at
# `grid(painter.generate(["3"] * 40), columns=20)`. What does the reader see in 100 of them? Try 4
# and 9, and 1 and 7. Before each, `painter = TextToImage.load(run)` brings the old table back.
#
# <details><summary>Answer</summary>
#
# 73 threes and 27 eights of 100. Quite a few are in between, but most are a *whole* digit of one
# kind: the noise decides which. Halfway between 4 and 9 it is 71 to 29. Halfway between 1 and 7
# there are 69 ones, 24 sevens, and 7 that are read as a 4.
#
# </details>
#
# **3. A better deal** (20 seconds a try). Copy the cell with `counted`, begin it with `each = 20`
# and `asked = torch.arange(10).repeat(20)`, and change its `scale=4` and its `intervals`. Find a
# choice that takes at most 17 passes a picture, is right for 97 % of the digits or more, and keeps
# a spread above 0.85. Multiples of 1/8 are enough: the solver takes eight steps.
#
# <details><summary>Answer</summary>
#
# A strong push for a short time, not too early: one step of the solver, 17 passes. A scale of 8 in
# (0.25, 0.375) had 97.5 % right (95 to 100 %) and a spread of 0.87, and 12 in (0.375, 0.5) had 97 %
# (94.3 to 99.7 %) and 0.94. In (0.25, 0.375), 4 gave 96.5 % and 0.94, and 12 gave 98.5 % and 0.84:
# with 200 digits, these shares are not yet apart.
#
# </details>
#
# **4. How much to drop** (3 minutes). Train for a fifth of the time with other dropouts, in runs of
# other names. With `config = recipe("learn-3-guidance")` and
# `settings = replace(config.train, pictures=20_000, caption_dropout=0.9)`:
# `run = trained(replace(config, name="drop-0.9", train=settings))`, then
# `painter = TextToImage.load(run)`. Do the same with 0.1 and with 0. Judge 200 digits of each at
# scales 1 and 3: `judge(paint(20, scale=1), torch.arange(10).repeat(20))`.
#
# <details><summary>Answer</summary>
#
# So early all digits are bad, but they can be compared. Right at scale 1 and at scale 3:
# 15 % and 20 % with a dropout of 0.9, since only one picture in ten said which digit it is;
# 30 % and 57 % with 0.1. And 35 % and 59 % with none, which is no worse (the intervals are 7
# points to each side)! The null row was never learned then and kept its small first numbers, and
# the network took it for something between all classes. Nothing promises that it will; a tenth is
# a cheap insurance.
#
# </details>
#
# ## What changes at scale
#
# * Nothing in the formula. [flow/guidance.py](../flowbrush/flow/guidance.py) serves a thousand
#   classes (`flowbrush train jit-b16`, [recipes/jit.py](../flowbrush/recipes/jit.py)) and prompts
#   (`flowbrush train emoji`) alike; with text, the null condition is the empty caption.
# * Scales are lower where the network is better: 2.9 in `jit-b16`, 2.2 in `jit-h16`.
# * `train.caption_dropout` stays at 0.1 nearly everywhere. With several text encoders each may be
#   silenced on its own as well: `train.encoder_dropout`.
# * Both passes go through the network as one batch of twice the size. A GPU hardly notices that for
#   one picture, and pays for it in full with many.
# * Scale and interval are chosen by measuring, after training:
#   `flowbrush evaluate RUN --sweep.scale 1 2 3 --sweep.interval 0 1 0.1 0.8` tries every scale in
#   every interval of times ([evaluate/sweep.py](../flowbrush/evaluate/sweep.py)). At scale, judge
#   tens of thousands of pictures.
#
# Next: [4 · Text](4_text.ipynb), where the one vector becomes a sentence.
