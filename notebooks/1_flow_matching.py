# %% [markdown]
# # 1 · Flow matching
#
# To be written.

# %%
from flowbrush import TextToImage, recipe
from flowbrush.learn.drawing import grid
from flowbrush.learn.session import begin, trained

quick = False  # True: a few steps only, to see that everything runs
begin(quick)

# %%
run = trained(recipe("learn-1-flow"), quick)
painter = TextToImage.load(run)
grid(painter.generate(["a digit"] * 20))
