"""Every shape that a signature states is checked while the tests run."""

import importlib
import pkgutil

import torch
from jaxtyping import install_import_hook

torch.set_num_threads(1)  # two threads on a busy machine ran up to 20 times slower

with install_import_hook("flowbrush", "beartype.beartype"):
    import flowbrush

    # All at once: the hook rewrites syntax trees, which CPython 3.11 cannot do in two threads.
    for module in pkgutil.walk_packages(flowbrush.__path__, "flowbrush."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
