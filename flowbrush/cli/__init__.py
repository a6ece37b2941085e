"""The verbs that a user types. Each takes its own options; `flowbrush VERB --help` lists them."""

import errno
import io
import os
import sys
from collections.abc import Sequence

from flowbrush.cli.compare import compare
from flowbrush.cli.doctor import doctor
from flowbrush.cli.evaluate import evaluate
from flowbrush.cli.plan import plan
from flowbrush.cli.prepare import prepare
from flowbrush.cli.recipes import recipes
from flowbrush.cli.sample import sample
from flowbrush.cli.train import train
from flowbrush.cli.weights import export, import_weights
from flowbrush.cpu import set_wait_policy
from flowbrush.errors import FirstError, UserError, check_unicode, nearest

VERBS = {
    "plan": plan,
    "doctor": doctor,
    "train": train,
    "prepare": prepare,
    "sample": sample,
    "evaluate": evaluate,
    "compare": compare,
    "recipes": recipes,
    "import": import_weights,
    "export": export,
}

COMPUTING = {"train", "prepare", "sample", "evaluate"}

HELP = """\
flowbrush: train text-to-image models from scratch, and paint with them.

  flowbrush recipes                          what can be trained, with its cost and result
  flowbrush plan jit-b16 --device h200       what it will need: FLOPs, memory, days
  flowbrush doctor jit-b16                   what stands in its way: machine, disk, data
  flowbrush prepare emoji --to DIR           encode pictures and captions once, to train from DIR
  flowbrush train emoji                      train a recipe; the run goes to runs/emoji
  flowbrush train runs/emoji                 go on with a run, exactly where it stopped
  torchrun --nproc-per-node 8 -m -- flowbrush train emoji   in 8 processes, each with its GPU
  flowbrush sample runs/emoji "a fox" バナナ   paint prompts
  flowbrush evaluate runs/emoji              measure a run
  flowbrush evaluate report runs/emoji       a run as one page, runs/emoji/report.html
  flowbrush compare runs/a runs/b            runs side by side, compare.html
  flowbrush import jit FILE --to runs/jit    make a run of published weights
  flowbrush export runs/jit --to diffusers DIR   make a folder that diffusers loads

flowbrush VERB --help lists a verb's options; flowbrush train RECIPE --help every choice of the
recipe as well."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb. Exit status: 0, 2 for a user's mistake, 128 + n when signal n stopped it."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal or pipe, in any encoding
            stream.reconfigure(errors="backslashreplace")
    verb, *rest = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if verb in ("--help", "-h", "help"):
        print(HELP)
        return 0
    try:
        for word in (verb, *rest):
            check_unicode(word, f"argument '{word}'")
        if verb not in VERBS:
            raise UserError(f"'{verb}' is not a verb ({', '.join(VERBS)}){nearest(verb, VERBS)}")
        if verb in COMPUTING:
            set_wait_policy()  # before anything imports torch
        return VERBS[verb](rest)
    except UserError as error:
        # Of torchrun's processes one is enough to say what all of them met before they joined.
        if isinstance(error, FirstError) or os.environ.get("LOCAL_RANK", "0") == "0":
            print(f"flowbrush: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        mend = "; free some, and run it again" if error.errno == errno.ENOSPC else ""
        place = error.filename or verb
        print(f"flowbrush: {place}: {error.strerror or error}{mend}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
