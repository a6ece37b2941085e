"""The training loop of an autoencoder: posterior, reconstruction, loss, step, averages.

Beside each checkpoint the averaged weights are written in diffusers' format, with the shift and the
scale that bring their latents to mean 0 and variance 1, as LatentConfig reads them.
"""

from contextlib import closing, nullcontext
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from flowbrush import checkpoint
from flowbrush.autoencoding import (
    AUTOENCODER_FOLDER,
    AutoencoderExperiment,
    autoencoder_loss,
    build_autoencoder,
)
from flowbrush.compute import choose_compute, record_compute
from flowbrush.config_io import to_json
from flowbrush.data.batches import batches
from flowbrush.data.provenance import commonest, provenance
from flowbrush.data.split import split
from flowbrush.errors import UserError
from flowbrush.experiment import CHECKPOINT_FOLDER
from flowbrush.processes import (
    Processes,
    autocast,
    deterministic_errors,
    use_deterministic_algorithms,
)
from flowbrush.randomness import derive, normal
from flowbrush.spaces.pixel import PixelSpace
from flowbrush.train.autoencoder_folder import (
    preview_pairs,
    psnr_of,
    shown_pictures,
    space_of,
    write_autoencoder,
)
from flowbrush.train.interruption import Interruption
from flowbrush.train.journal import Journal, check_loggers, is_time
from flowbrush.train.parallel import MeanGradients, compile_blocks
from flowbrush.train.rejects import Rejects
from flowbrush.train.run_folder import change_since, check_data, opened
from flowbrush.train.saving import Saving
from flowbrush.train.start import start_from
from flowbrush.train.steps import Steps


def train_autoencoder(
    config: AutoencoderExperiment,
    run: Path,
    processes: Processes,
    changeable: tuple[str, ...] = (),
    changed_data: bool = False,
) -> int:
    """Train until `config.train.pictures` are seen, from the newest checkpoint in `run`, if any.

    Several processes share the work as in `train`.
    changeable, changed_data: as in `train`.
    Returns the exit status: 0 when done, 128 + n when signal n stopped it, after a checkpoint.
    Raises UserError for what the user can mend.
    """
    # Build the parts.
    if config.train.deterministic:
        use_deterministic_algorithms()
    if processes.is_main:
        check_loggers(config.watch)
    whole = config.source.build(config.size)
    source, held_out = split(whole, config.held_out)
    if not len(source):
        raise UserError(f"held_out: {config.held_out} leaves no picture to train on; lower it")
    settings, b, device, pixels = config.train, config.batch.size, processes.device, PixelSpace()
    side, written = config.size // config.autoencoder.factor, run / AUTOENCODER_FOLDER
    folder = run / CHECKPOINT_FOLDER
    network, distance = build_autoencoder(config, device), config.loss.build_distance(device)
    begins_averaged = False  # with averaged weights
    if settings.start and not checkpoint.exists(run / CHECKPOINT_FOLDER):
        begins_averaged = start_from(Path(settings.start), config, network)
    steps = Steps(network, settings, device)
    averaged = steps.first_average  # what is written and shown

    def losses_of(
        images: Float[Tensor, "b 3 H W"], noise: Float[Tensor, "b c h w"], dtype: torch.dtype
    ) -> Float[Tensor, " b"]:
        with autocast(dtype, device):
            posterior = network.encode(images, return_dict=False)[0]
            drawn = posterior.mean + posterior.std * noise
            decoded = network.decode(drawn, return_dict=False)[0].float()
        mean, log_variance = posterior.mean.float(), posterior.logvar.float()
        return autoencoder_loss(config.loss, images, decoded, mean, log_variance, distance)

    def trial(dtype: torch.dtype, images: int) -> None:
        noise = torch.randn(images, config.autoencoder.channels, side, side, device=device)
        pixels = torch.rand(images, 3, config.size, config.size, device=device)
        losses_of(pixels, noise, dtype).mean().backward()
        network.zero_grad()

    micro, resumes = b // settings.accumulate // processes.world, checkpoint.exists(folder)
    compute = choose_compute(run, settings.precision, processes, resumes, trial, micro)
    dtype = compute.dtype
    if settings.compile:
        compile_blocks(network, dtype, device)
    gradients, main = MeanGradients(network, processes), processes.is_main

    with opened(run, config, changeable, source.attribution) if main else nullcontext():
        # Go on from the newest whole checkpoint.
        seen, found = 0, None
        origin = provenance(config.source, whole) if main else {}
        if main:
            record_compute(run, compute)
            found = checkpoint.newest(folder, print) if checkpoint.exists(folder) else None
        if found := processes.gathered(found)[0]:
            progress = checkpoint.load(found, "progress")
            seen, begins_averaged = progress["pictures"], progress.get("begins_averaged", False)
            check_data(
                processes.gathered(change_since(found, origin, whole) if main else None)[0],
                bool(config.held_out),
                changed_data,
                processes.say,
            )
            for name, state in steps.states.items():
                checkpoint.fill(found, name, state, str(found))
        if begins_averaged:
            steps.begin_as_averages()
        if seen >= settings.pictures:
            processes.say(f"{run}: already trained on {seen:,} pictures")
            return 0

        rejects = Rejects(run, len(source), processes)
        shown = shown_pictures(held_out, source)
        ahead = batches(source, config.batch, settings.seed, seen, processes.rank, processes.world)
        with (
            deterministic_errors(),
            Interruption() as stop,
            closing(ahead) as loader,
            Journal(run, config, seen, silent=not main, device=device) as journal,
            Saving(folder, config.watch.keep, processes) as saving,
        ):
            for batch in journal.timed(loader):
                # Draw the posterior's noise: a function of a picture's place.
                rejects.add(batch)
                pictures = pixels.normalize(batch.pictures_on(device), ())
                keys = [derive(settings.seed, "posterior", place) for place in batch.places]
                noise = normal(keys, (config.autoencoder.channels, side, side), device)

                # Evaluate the loss and its gradients, in parts.
                total = torch.zeros((), device=device)
                parts = torch.arange(len(pictures), device=device).chunk(settings.accumulate)
                for i, part in enumerate(parts, start=1):
                    loss = losses_of(pictures[part], noise[part], dtype).sum() / len(pictures)
                    with gradients.shared(last=i == len(parts)):
                        loss.backward()
                    total += loss.detach()

                # Step.
                step = steps.take(seen, b)
                seen += b
                journal.add(processes.mean(total), step.norm, step.skipped)

                # Once in a while.
                done = seen >= settings.pictures
                stopped = stop.asked(processes) or bool(rejects.problem)
                if is_time(config.watch.log, seen, b) or done or stopped:
                    journal.write(seen, step.lr)
                    steps.guard.check()
                if main and (is_time(config.watch.preview, seen, b) or done):
                    with journal.beside():
                        space = space_of(config, averaged, sample=False)
                        journal.show(preview_pairs(space, shown), seen)
                if is_time(config.watch.checkpoint, seen, b) or done or stopped:
                    journal.write(seen, step.lr)  # a line ends here, also where a run goes on
                    plain = {
                        "progress": {"pictures": seen, "begins_averaged": begins_averaged},
                        "config": to_json(config),
                        "provenance": origin | {"rejected": commonest(rejects.reasons)},
                    }
                    with journal.beside():
                        steps.check_finite()
                        if main:
                            write_autoencoder(config, averaged, source, written)
                        saving.begin(seen, steps.states | plain)
                        journal.draw()
                if saving.is_written():
                    with journal.beside():
                        saving.end()
                if done or stopped:
                    break

        say = processes.say
        for summary in filter(None, (rejects.summary(), steps.guard.summary())):
            say(summary)
        if rejects.problem:
            raise UserError(f"{rejects.problem}; {seen:,} pictures are learned and saved")
        if stopped:
            say(f"stopped after {seen:,} pictures, and saved; go on with: flowbrush train {run}")
        elif main:
            space = space_of(config, averaged, sample=False)
            say(f"{run}: trained on {seen:,} pictures; {psnr_of(space, held_out, source)}")
            say(f'paint in its latents with space=LatentConfig(model="{written}")')
        processes.wait()  # torchrun ends all when one has ended: only when all is written
        return stop.exit_status if stopped else 0
