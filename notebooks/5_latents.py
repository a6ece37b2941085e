# %% [markdown]
# # 5 · Latents, and pixels again
#
# A transformer reads a picture as tokens, and a large picture is many of them. There are two ways
# out. One paints in *latents*: a smaller picture that an autoencoder makes of the large one, and
# turns back. Stable Diffusion and most of what followed it do so. The other stays in pixels and
# makes the *patches very large*, which works if the network predicts the data and not the velocity:
# JiT (Li & He 2025). Here you build both, for emoji at 128 pixels, and compare them at equal cost.
#
# **You will learn**
#
# * where the cost of a picture comes from, and which part of it is quadratic;
# * what is in a latent, what the KL term is for, and why latents are scaled;
# * to train text-to-image in latents that you trained yourself, at 64 and 128 pixels;
# * why, in large patches of pixels, predicting the velocity fails and predicting the data does not.
#
# **Time:** 7 minutes on two CPU cores.
#
# **Before:** [4 · Text](4_text.ipynb) · this is the last step

# %%
import inspect
from dataclasses import replace

import matplotlib.pyplot as plt
import torch
from IPython.display import Code, display

from flowbrush import TextToImage, recipe
from flowbrush.autoencoding import autoencoder_loss
from flowbrush.contact_sheet import contact_sheet
from flowbrush.data.prepared import PreparedConfig
from flowbrush.data.split import split
from flowbrush.evaluate.asked import of_run
from flowbrush.evaluate.intervals import of_mean
from flowbrush.evaluate.reconstruction import psnr, readable, reconstructed
from flowbrush.learn.cost import cost, draw_costs
from flowbrush.learn.drawing import BLUE, VERMILION, grid
from flowbrush.learn.judging import judged, table
from flowbrush.learn.latents import blended, draw_channels, explained, patches, variances
from flowbrush.learn.session import begin, trained
from flowbrush.plan.flops import LEARNING, META, counted
from flowbrush.prepare.prepare import PrepareConfig, prepare
from flowbrush.randomness import normal
from flowbrush.shapes import ConditionShapes
from flowbrush.spaces import LatentConfig
from flowbrush.train.autoencoder_folder import preview_pairs

quick = False  # True: a few steps only, to see that everything runs
begin(quick)

# %% [markdown]
# ## Why pixels get expensive
#
# A picture of $s \times s$ numbers in patches of $p \times p$ is $n = (s / p)^2$ tokens. A block of
# width $d$ computes, forward, about
# $$24 \, n \, d^2 + 4 \, n^2 d \quad \text{FLOPs}$$
# The first term is matrices that each token goes through. The second is attention, where each token
# meets every other. They are equal at $n = 6d$. Double the side, and $n$ is 4 times as large: the
# first term grows 4 times, the second **16 times**.
#
# Below is what *one* picture costs a small transformer ($d = 192$) to learn, forward and backward:
# in pixels in patches of 4, and in latents of an eighth of the side, as Stable Diffusion has them,
# in patches of 2. FLOPs are [counted](../flowbrush/plan/flops.py) and memory is
# [followed tensor by tensor](../flowbrush/plan/live.py), both without computing anything; seconds
# are measured on this machine, as far as that is quick. Both axes are logarithmic.

# %%
transformer = recipe("learn-5-latent")
text = ConditionShapes(text_width=512, text_tokens=1, pooled_width=512)
sizes = (32,) if quick else (32, 64, 128, 256, 512)
costs = {"pixels, patch 4": [], "latents, patch 2": []}
for size in sizes:
    config = replace(transformer, size=size)
    costs["pixels, patch 4"].append(cost(config, 3, size, 4, text))
    costs["latents, patch 2"].append(cost(config, 4, size // 8, 2, text))
fig, axes = plt.subplots(1, 3, figsize=(9, 3.2), layout="constrained")
draw_costs(axes, costs)

# %%
for way, steps in costs.items():
    print(f"{way:17}     tokens          GFLOP    of it attention's n²")
    for one in steps:
        gflop, share = one.flops / 1e9, one.attention / one.flops
        print(f"{one.size:14} px {one.tokens:10,} {gflop:14,.2f} {share:15.0%}")

# %% [markdown]
# The dotted lines are attention's quadratic part: in pixels it is next to nothing at a side of 32,
# and nearly everything at 512. (In memory attention is linear, because its kernels never store the
# $n \times n$ matrix.)
#
# What is *inside* a token costs almost nothing, because only the first and the last layer see it;
# how many there are costs everything. Hence the two ways out: **fewer numbers** (latents), or
# **more numbers in a token** (large patches). Every transformer below has 16 tokens a picture, at
# 64 pixels and at 128.
#
# ## An autoencoder
#
# The encoder makes of a picture a small map of several channels, and the decoder turns it back. It
# learns before the flow and apart from it, from all emoji and without captions. For each number of
# the map the encoder says a mean $\mu$ and a deviation $\sigma$, and the decoder sees a draw
# $\mu + \sigma \epsilon$, where $\epsilon$ is standard normal noise. The loss is the error of the
# decoded picture $\hat{x}$ against the real one $x$ and, with a small weight $\lambda$, the KL
# divergence of that draw from standard normal noise:
#
# $$\sum_{\text{picture}} \left( |\hat{x} - x| + (\hat{x} - x)^2 \right) + \lambda
# \sum_{\text{map}} \tfrac{1}{2} \left( \mu^2 + \sigma^2 - 1 - \log \sigma^2 \right)$$
#
# all divided by how many numbers the picture has. Without the KL term the encoder could spread its
# latents as far apart as it likes, until $\sigma$ no longer matters beside them. With it a wide
# latent and a small $\sigma$ have a price, so latents stay within bounds, and the decoder learns to
# be content with one that is a little off, as a painted latent always is. With a large $\lambda$,
# though, the noise drowns what is worth knowing: here it is 0.0005. In the code, `edges` and
# `perceptual` are further terms; both have weight 0 here.

# %%
Code(inspect.getsource(autoencoder_loss), language="python")

# %% [markdown]
# It learns at 32 pixels, where a picture costs a sixteenth of what it does at 128. Its layers are
# convolutions, so it takes pictures of any size. This is the longest cell here, about four minutes.

# %%
learned = recipe("learn-5-autoencoder")
autoencoder = trained(learned, quick)

# %% [markdown]
# The run's folder holds it in the format of diffusers, and `LatentConfig` reads Stable Diffusion's
# or Flux' autoencoder just like this one. With `sample=False` a latent is the mean $\mu$, not a
# draw. Here are emoji that it never saw, and below them what is left after the way through the
# latents, a quarter of the side in 8 channels. PSNR is
# $10 \log_{10}(255^2 / \text{mean squared error})$, in decibels (dB): 6 dB more, and the error of a
# number is half as large.

# %%
latents = LatentConfig(model=str(autoencoder / "autoencoder"), sample=False)
space = latents.build(torch.device("cpu"))
sources = {size: learned.source.build(size) for size in (64, 128)}
few, unseen = 16 if quick else 70, {}
for size, source in sources.items():
    held_out = split(source, learned.held_out).held_out
    unseen[size] = next(readable(held_out, few, together=few))
    value, low, high = of_mean(psnr(unseen[size], reconstructed(space, unseen[size])))
    fewer = unseen[size][0].numel() // torch.Size(space.shape(size)).numel()
    print(f"{size} px through {space.shape(size)}, {fewer} times fewer numbers: ", end="")
    print(f"{value:.1f} dB PSNR ({low:.1f} to {high:.1f}), {len(unseen[size])} emoji")
    display(preview_pairs(space, unseen[size][: 8 * (few // 8) : few // 8]))

# %% [markdown]
# ## What is in a latent
#
# Above, a picture of 128 pixels comes back better than one of 64: the same strokes are twice as
# wide there, so a place in the latent has less to say.
#
# Below, a row is a picture and the channels of its latent (red is above 0, blue below). They are
# small, distorted pictures themselves: a place in the map stands for 4 x 4 pixels, and the channels
# share out what there is to say of them (light, colours, edges). So a transformer can cut latents
# into patches just as it does pixels. In the code `compress` encodes, and `normalize` gives latents
# the scale of noise, of which more below (`range` numbers the pictures, in case one is drawn).

# %%
shown = unseen[64][:: few // 8][[1, 3, 6, 7]]
x = space.normalize(space.compress(shown), range(len(shown)))
fig, axes = plt.subplots(len(shown), 1 + len(x[0]), figsize=(8, 4), layout="constrained")
for row, picture, latent in zip(axes, shown, x, strict=True):
    draw_channels(row, picture, latent)
for i, ax in enumerate(axes[0][1:]):
    ax.set_title(f"channel {i}", fontsize=9)

# %% [markdown]
# Now change the latent, then decode it.
#
# * *Moved* by two places, it decodes to the picture moved by eight pixels.
# * *Noise* in the latent is not noise in the picture: colours and strokes go wrong, but they are
#   still colours and strokes.
# * *Nothing but noise*, of the right mean and deviation, decodes to a texture and not to an emoji.
#   The decoder knows strokes, not what belongs together. That is left for the flow to learn.

# %%
noise = normal(range(len(x)), x.shape[1:], torch.device("cpu"))
changed = {
    "as it is": x,
    "moved": x.roll(2, dims=3),
    "noise of 0.2": x + 0.2 * noise,
    "noise of 0.5": x + 0.5 * noise,
    "nothing but noise": noise,
}
decoded = torch.stack([space.decode(some) for some in changed.values()], dim=1)
contact_sheet(decoded[:3].flatten(0, 1), 3 * [*changed], columns=5)

# %% [markdown]
# And halfway between two pictures? Mixed in pixels (above), in latents (below):

# %%
steps = 7
mixed = blended(shown[0].float(), shown[1].float(), steps).to(torch.uint8)
grid(torch.cat([mixed, space.decode(blended(x[0], x[1], steps))]), columns=steps)

# %% [markdown]
# The latent way is a cross-fade too, only with harder edges and stranger colours. Such a latent
# space is *smooth*, but it is no space of *meanings*: a picture between two latents is not an emoji
# between two emoji.
#
# ## Why latents are scaled
#
# On the path $x_t = t \cdot \text{data} + (1 - t) \cdot \text{noise}$ the noise has deviation 1.
# How much of the data shows through at a time $t$ depends on the data's own deviation. In Stable
# Diffusion's latents that is about 5.5: $x_t$ would be nearly clean at most times, and the network
# would hardly ever practise what is difficult. So latents are brought to mean 0 and deviation 1, by
# two numbers that are measured once and kept with the autoencoder (the famous 0.18215 is 1 / 5.5):
# $$x = (\text{latent} - \text{mean}) \cdot \text{scale}$$
# Below, `compress` gives $\mu$ and $\log \sigma^2$, one after the other in the channels.

# %%
mean, log_variance = space.compress(unseen[64]).chunk(2, dim=1)
scaled = space.normalize(space.compress(unseen[64]), range(few))
print(f"mean {space.mean.item():.3f}, scale {space.scale.item():.3f}")
for name, numbers in (("latents", mean), ("scaled", scaled)):
    of_each = ", ".join(f"{channel.std():.2f}" for channel in numbers.transpose(0, 1))
    print(f"{name}: deviation {numbers.std():.2f}; of each channel {of_each}")
print(f"the encoder's own noise has a deviation of {(log_variance / 2).exp().mean():.2f}")

# %% [markdown]
# The deviation is not quite 1: mean and scale were measured at 32 pixels, and these emoji have 64.
# One number serves all channels, though they differ; `LatentConfig(mean=..., scale=...)` takes
# one a channel as well.
#
# ## Flow in latents
#
# In the flow nothing changes: the network sees latents where it saw pixels, and what it paints is
# decoded at the end (the last line of [text_to_image.py](../flowbrush/text_to_image.py)). And since
# the autoencoder learns no more, each picture is encoded *once*: `prepare` writes latents and text
# features to a folder that is trained from. Here that is 64 emoji; on a cluster, millions of
# pictures. The latents' 16 x 16 places at 64 pixels are cut into patches of 4 x 4, and the 32 x 32
# at 128 pixels into patches of 8 x 8: 16 tokens each time.


# %%
def painter_in_latents(name):
    config = replace(recipe(name), space=latents)
    folder = autoencoder / f"latents-{config.size}"
    done = prepare(config, PrepareConfig(to=folder))
    print(f"{done.pictures} pictures encoded, {done.seconds:.0f} s")
    run = trained(replace(config, source=PreparedConfig(path=folder)), quick)
    return TextToImage.load(run)


small = painter_in_latents("learn-5-latent")
large = painter_in_latents("learn-5-latent-128")

# %% [markdown]
# Each name is read as one vector by step 4's text encoder, English and Japanese alike, and painting
# is guided as there. Above at 64 pixels, below at 128: with 16 tokens in both, a picture costs the
# transformers nearly the same.

# %% tags=["cover"]
prompts = ["hot pepper", "とうがらし", "wrapped gift", "プレゼント"]
prompts += ["skull", "ドクロ", "OK button", "okマーク"]
for painter in (small, large):
    display(contact_sheet(painter.generate(prompts), prompts, cell=painter.config.size))

# %% [markdown]
# ## JiT: large patches of pixels
#
# Cut a picture of 128 x 128 pixels into patches of 32 x 32, and it is 16 tokens as well, with no
# autoencoder at all. But now a token is 3,072 numbers, and the network is 192 wide. Its last layer
# is linear, so whatever it says of a patch lies in 192 directions of the 3,072, the same ones for
# all patches. What has to fit into them?
#
# * To predict the **data**: a clean patch. Real patches lie near few directions.
# * To predict the **velocity** = data - noise: the noise as well. That is equally strong along
#   every direction, and independent of the data: its covariance is $I$, and
#   $\text{Cov}(\text{data} - \text{noise}) = \text{Cov}(\text{data}) + I$.
#
# So how much of each could the *best* 192 directions hold?

# %%
jit = recipe("learn-5-pixels")
width, patch = jit.backbone.width, jit.backbone.patch
emoji = next(readable(sources[jit.size], 300, together=300))
data = variances(patches(emoji.float() / 127.5 - 1, patch))
fig, ax = plt.subplots(figsize=(6.5, 3), layout="constrained")
for name, along, colour in (
    ("data", data, BLUE),
    ("velocity", data + 1, VERMILION),
    ("noise", torch.ones_like(data), "#999999"),
):
    share = explained(along)
    ax.plot(range(1, 1 + len(share)), share, color=colour, label=name)
    print(f"{name}: {share[width - 1]:.1%} of the variance in {width} directions")
ax.axvline(width, color="k", lw=0.8, ls=":", label="width of the network")
ax.legend()
ax.set(xlabel="directions, of 3,072", ylabel="share of the variance", ylim=(0, 1.03))
plt.show()

# %% [markdown]
# The same network, then, learns twice: the same pictures in the same order with the same noise. One
# word is different: `prediction` is "data" in the recipe, and then "velocity". The loss is that of
# the velocity both times; a prediction of the data is turned into a velocity
# ([flow/path.py](../flowbrush/flow/path.py)) by
# $$\text{velocity} = \frac{\text{data} - x_t}{1 - t}$$
# Here $x_t$ is at hand, with all its noise: the noise comes from *outside* the network, and need
# not pass through it.

# %%
pixels = TextToImage.load(trained(jit, quick))
other = replace(jit, name="learn-5-velocity", flow=replace(jit.flow, prediction="velocity"))
velocity = TextToImage.load(trained(other, quick))

# %%
what = of_run(jit, 0)
real = torch.cat([*what.real()])
print("real")
display(contact_sheet(real[[what.captions.index(one) % len(real) for one in prompts]], prompts))
runs = {"latents": large, "pixels, data": pixels, "pixels, velocity": velocity}
for name, painter in runs.items():
    print(name)
    display(contact_sheet(painter.generate(prompts), prompts))

# %% [markdown]
# The network that predicts velocity has learned the emoji as well. What it cannot do is take the
# noise away: all but 192 of the 3,072 directions are out of its reach, so about 94 % of the
# noise that painting begins with is there at the end.
#
# ## Which is better?
#
# Each paints all that it has learned, by the English and by the Japanese name. *Right first* asks
# whether the nearest of the 64 real pictures is the one that was asked for, as
# `flowbrush evaluate RUN` does. Even a noisy picture passes easily, so below it stands how near the
# painted picture comes to the real one, in dB of PSNR. In brackets are 95 % intervals.

# %%
print(table({name: judged(painter, 4 if quick else 0) for name, painter in runs.items()}))
ceiling = psnr(real, reconstructed(space, real)).mean()
print(f"The real ones, through the autoencoder and back: {ceiling:.1f} dB")

# %%
with META:
    network = learned.autoencoder.build()
picture = torch.zeros(1, 3, learned.size, learned.size, device=META)
flops = LEARNING * counted(lambda: network(picture)) * learned.train.pictures
decoder = sum(weight.numel() for weight in network.decoder.parameters())
print(f"The autoencoder was learned by {flops / 1e12:.1f} TFLOP, once for all that use it;")
print(f"its decoder has {decoder / 1e6:.1f} M weights.")

# %% [markdown]
# For as many FLOPs of the transformer (12,000 pictures in pixels, 16,000 in latents, whose patches
# have fewer numbers), latents come nearer to the real pictures: their white ground is clean where
# pixels keep a grain, and nothing shows where one patch ends. Two things speak for pixels. The
# autoencoder cost four times as much as either run; it pays when many models share it, not for 64
# emoji. And what is painted in latents hardly comes nearer than what the decoder gives back, 28.1
# dB, while pixels go on improving: with 16,000 pictures too (`--train.pictures 16000`) they reached
# 25.2 dB. That *right first* passes the noisy pictures as well is a lesson too: look at pictures,
# and never trust one figure.
#
# ## Exercises
#
# **1. Large pictures want more noise.** In a large picture neighbouring pixels say the same, so it
# shows through much noise, and `learn-5-pixels` shifts its times towards the noise, by `shift=4.0`
# (Esser et al. 2024; [flow/times.py](../flowbrush/flow/times.py)). Undo that: by `replace`, give
# `shift=1.0` to `jit.flow.times`, `shift=1.0, interval=(0.1, 0.8)` to `jit.sampling` (the times at
# which guidance acts are shifted, too), and another `name` to the whole. Train it like `other`
# above, look, and print its `table`. (A minute or two.)
#
# <details><summary>Answer</summary>
#
# The patches are right, and in the wrong places: skulls with four eyes, a pepper in pieces. Right
# first falls to 86 % (77 to 95 %) in English and 83 % (73 to 93 %) in Japanese, and 12.9 dB are
# left. What goes where is decided early, in much noise; without the shift the network hardly ever
# practises that.
#
# </details>
#
# **2. Without KL.** Train `replace(learned, name="learn-5-no-kl", loss=replace(learned.loss,
# kl=0.0), train=replace(learned.train, pictures=6_000))`, build its space as above, and print the
# figures of "Why latents are scaled" for it. What has changed? (A minute.)
#
# <details><summary>Answer</summary>
#
# Latents spread: their deviation is 3.0 and the scale 0.37, after a fifth of the pictures; with KL
# it is 2.0 and 0.55 at the end. The encoder's noise stays at 0.02, so against the latents it is
# smaller still. Nor does it reconstruct badly (21.3 dB at 32 pixels, after so few pictures): the KL
# term is there for the flow, not for the decoder.
#
# </details>
#
# **3. Fewer steps.** Paint `prompts` by
# `large.generate(prompts, replace(large.config.sampling, steps=n))` for `n` = 1, 2, 4 and 8. How
# many does it need? Then try `scale=1.0` as well, which is no guidance. For figures, paint
# `what.captions` instead, and take `psnr(torch.cat([real, real]), painted).mean()`. (Seconds.)
#
# <details><summary>Answer</summary>
#
# One is enough! Over all names, as above, it has 26.3 dB, and eight steps 26.5. A name stands for
# one picture here, so nothing is left for the noise to decide, and the first guess is right. But 2
# and 4 steps have 20.8 and 20.7. Guidance acts at times from 0.05 to 0.67 only
# (`large.config.sampling.interval`), and their *last* step begins there: it pushes away from what
# is painted without a name, and no step follows to mend that. The last of eight steps begins at
# 0.78, the only one of one at 0. With `interval=(0.05, 1.0)` eight steps have 20.6 as well; with
# `scale=1.0` two have 26.7.
#
# </details>
#
# **4. Languages it has never learned.** `what = of_run(large.config, 0, ("de", "zh"))` holds the
# same emoji with German and Chinese names in `what.captions`. Paint them, and judge them by
# `by_source(what, [painted])`, imported from `flowbrush.evaluate.measure`. (Half a minute.)
#
# <details><summary>Answer</summary>
#
# The right one is nearest for 73 % (62 to 85 %) of the German and 78 % (68 to 89 %) of the Chinese
# names: the sentence encoder puts a name near its translation. Where it is not near enough, you see
# textures of the right colours.
#
# </details>
#
# ## What changes at scale
#
# * **Autoencoders** make latents of an eighth of the side, in 4 channels (Stable Diffusion) or 16
#   (SD3, Flux). They learn from millions of pictures, with a perceptual loss besides:
#   `flowbrush train folder-autoencoder --loss.perceptual 0.1` for your own
#   ([autoencoding.py](../flowbrush/autoencoding.py)); or name a published one,
#   `--space.model stabilityai/sd-vae-ft-mse`.
# * **Encoding once** saves days: `flowbrush prepare coyo --to DIR` in many processes, then
#   `flowbrush train coyo --prepared DIR` ([prepare/](../flowbrush/prepare/prepare.py)).
# * **Mean and scale** of your own pictures' latents: `flowbrush evaluate latents RECIPE`
#   ([spaces/statistics.py](../flowbrush/spaces/statistics.py)).
# * **JiT** keeps 256 tokens at 256 pixels and at 512: `flowbrush train jit-b16` and `jit-b32`, the
#   latter with twice the noise ([recipes/jit.py](../flowbrush/recipes/jit.py)). With captions:
#   `jit-b16-text`.
# * **Latent transformers** as published: `flowbrush train sit-xl2` (classes), `jax-flow-flux`,
#   `jaxfm-stage1` and `jaxfm-stage2` (captions).
# * **Before you pay**, `flowbrush plan RECIPE` says FLOPs, memory, days and money.
