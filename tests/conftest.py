"""Every shape that a signature states is checked while the tests run."""

import torch
from jaxtyping import install_import_hook

install_import_hook("flowbrush", "beartype.beartype")
torch.set_num_threads(1)  # two threads on a busy machine ran up to 20 times slower
