"""The training loop: noise, times, loss, step, averages; now and then a preview, a checkpoint."""

from contextlib import closing, nullcontext
from pathlib import Path

import torch

from flowbrush import checkpoint
from flowbrush.averages import AVERAGES_FOLDER
from flowbrush.blocks import recompute_blocks
from flowbrush.compute import choose_compute, record_compute
from flowbrush.condition import joined
from flowbrush.config_io import to_json
from flowbrush.data.provenance import commonest, provenance
from flowbrush.errors import UserError
from flowbrush.evaluate.watched import Watched
from flowbrush.experiment import (
    CHECKPOINT_FOLDER,
    ExperimentConfig,
    build_denoiser,
    build_encoder,
    build_shapes,
    check_shapes,
    with_classes,
)
from flowbrush.flow.loss import flow_loss
from flowbrush.plan.flops import work_of
from flowbrush.plan.here import trial_step
from flowbrush.processes import (
    Processes,
    autocast,
    deterministic_errors,
    use_deterministic_algorithms,
)
from flowbrush.randomness import derive, normal, uniform
from flowbrush.text.null import record_null
from flowbrush.text_to_image import OTHERS, TextToImage
from flowbrush.train.interruption import Interruption
from flowbrush.train.journal import Journal, check_loggers, is_time
from flowbrush.train.parallel import compile_blocks, share
from flowbrush.train.previews import preview, preview_prompts
from flowbrush.train.rejects import Rejects
from flowbrush.train.run_folder import change_since, check_data, opened
from flowbrush.train.saving import Saving
from flowbrush.train.stages import build_stages, staged_batches
from flowbrush.train.start import start_from
from flowbrush.train.steps import Steps


def train(
    config: ExperimentConfig,
    run: Path,
    processes: Processes,
    changeable: tuple[str, ...] = (),
    changed_data: bool = False,
) -> int:
    """Train until `config.train.pictures` are seen, from the newest checkpoint in `run`, if any.

    All processes learn the same weights, each from its part of every batch: pictures, noise, times
    and order are those of one process. Only dropout inside the network depends on their number.
    The main one alone paints, measures and writes; of a network in shards all do, and it writes.
    changeable: dotted beginnings of the fields in which `config` may differ from the run's own.
    changed_data: whether other images may be held out than before, where files have changed.
    Returns the exit status: 0 when done, 128 + n when signal n stopped it, after a checkpoint.
    Raises UserError for what the user can mend.
    """
    # Build the parts.
    if config.train.deterministic:
        use_deterministic_algorithms()
    if processes.is_main:
        check_loggers(config.watch)
    whole = config.source.build(config.each_stage[0].size)
    config = with_classes(config, whole)
    stages = build_stages(config, whole)
    source = stages[0].source
    settings, b, device = config.train, config.batch.size, processes.device
    encoder, space = build_encoder(config, whole, device), config.space.build(device)
    if settings.encoder_dropout and encoder.parts == 1:
        raise UserError("train.encoder_dropout: text has one model only; give caption_dropout")
    check_shapes(config, space, encoder)
    null = encoder.null.to(device)
    shapes = build_shapes(config, space, encoder)
    denoiser = build_denoiser(config, shapes, device)
    network, resumes = denoiser.backbone, checkpoint.exists(run / CHECKPOINT_FOLDER)
    begins_averaged = False  # with averaged weights
    if settings.start and not resumes:
        begins_averaged = start_from(Path(settings.start), config, network)
    trial = trial_step(denoiser, shapes, config.flow.loss_space, device)
    micro = b // settings.accumulate // processes.world
    compute = choose_compute(run, settings.precision, processes, resumes, trial, micro)
    dtype = compute.dtype
    if settings.recompute:
        recompute_blocks(network)
    if settings.compile:
        compile_blocks(network, dtype, device)
    gradients = share(network, processes, settings.sharding)
    steps = Steps(network, settings, device)
    painters = [
        TextToImage(stage.config, denoiser, encoder, space, device, dtype=dtype) for stage in stages
    ]
    prompts = preview_prompts(config.watch.prompts, source)
    encoder(prompts)  # refuses now what it would refuse at the first preview
    main, paints = processes.is_main, processes.is_main or settings.sharding != "none"
    watching = paints and config.evaluate.every
    watched = [Watched(one.config, one.source, one.held_out) for one in stages if watching]

    with opened(run, config, changeable, source.attribution) if main else nullcontext():
        # Go on from the newest whole checkpoint.
        seen, folder, found = 0, run / CHECKPOINT_FOLDER, None
        origin = provenance(config.source, whole) if main else {}
        if main:
            record_null(run, encoder.null)
            record_compute(run, compute)
            found = checkpoint.newest(folder, print) if checkpoint.exists(folder) else None
        if found := processes.gathered(found)[0]:
            progress = checkpoint.load(found, "progress")
            seen, before = progress["pictures"], progress.get("examples", len(source))
            if before > len(source):
                raise UserError(
                    f"source: {len(source):,} examples, and {before:,} at the last checkpoint; put "
                    "back what is gone, or begin another run"
                )
            check_data(
                processes.gathered(change_since(found, origin, whole) if main else None)[0],
                bool(config.held_out),
                changed_data,
                processes.say,
            )
            begins_averaged = progress.get("begins_averaged", False)
            steps.fill(found, f"{run}: {OTHERS}")  # of an import without an optimizer's state
        if begins_averaged:
            steps.begin_as_averages()
        if seen >= settings.pictures:
            processes.say(f"{run}: already trained on {seen:,} pictures")
            return 0

        rejects = Rejects(run, len(source), processes)
        steady = main and not config.stages  # else the work of a picture changes on the way
        work = work_of(config.backbone, shapes, device, dtype, processes.world) if steady else None
        with (
            deterministic_errors(),
            Interruption() as stop,
            Journal(run, config, seen, silent=not main, work=work, device=device) as journal,
            closing(staged_batches(config, stages, seen, processes, journal.say)) as loader,
            Saving(folder, config.watch.keep, processes) as saving,
            Saving(run / AVERAGES_FOLDER, None, processes) as snapshots,
        ):
            for batch in journal.timed(loader):
                # Draw noise, times and dropped captions: functions of a picture's place.
                rejects.add(batch)
                keys = [derive(settings.seed, "posterior", place) for place in batch.places]
                data = space.normalize(space.compress(batch.pictures_on(device)), keys)
                keys = [derive(settings.seed, "noise", place) for place in batch.places]
                noise = config.flow.noise_scale * normal(keys, data.shape[1:], device)
                positions = data.shape[2] * data.shape[3]
                drawn = batch.places, b, positions, config.flow.diffusion
                t = config.flow.times.draw(settings.seed, *drawn).to(device)
                dropped = uniform(settings.seed, "dropout", batch.places) < settings.caption_dropout
                coins = [
                    uniform(settings.seed, f"dropout of text {part}", batch.places)
                    for part in range(encoder.parts)
                ]
                silent = torch.stack(coins, dim=1) < settings.encoder_dropout
                ready = batch.features
                given = joined(ready) if ready else encoder(batch.captions, silent)
                condition = given.to(device).replaced_where(dropped.to(device), null)

                # Evaluate the loss and its gradients, in parts.
                key = derive(settings.seed, "layers", seen + processes.rank)
                torch.manual_seed(key)  # of the network's dropout
                total = torch.zeros((), device=device)
                parts = torch.arange(len(data), device=device).chunk(settings.accumulate)
                for i, part in enumerate(parts, start=1):
                    with gradients.shared(last=i == len(parts)):
                        with autocast(dtype, device):
                            losses = flow_loss(
                                denoiser,
                                data[part],
                                noise[part],
                                t[part],
                                condition.rows(part),
                                config.flow.loss_space,
                            )
                        loss = losses.float().sum() / len(data)
                        loss.backward()
                    total += loss.detach()

                # Step.
                step = steps.take(seen, b)
                painter = painters[stage := config.stage(seen)]
                seen += b
                journal.add(processes.mean(total), step.norm, step.skipped)

                # Once in a while.
                done = seen >= settings.pictures
                stopped = stop.asked(processes) or bool(rejects.problem)
                if is_time(config.watch.log, seen, b) or done or stopped:
                    journal.write(seen, step.lr)
                    steps.guard.check()
                if paints and (is_time(config.watch.preview, seen, b) or done):
                    with journal.beside(), steps.averaged():
                        journal.show(preview(painter, prompts), seen)
                if watched and (is_time(config.evaluate.every, seen, b) or done):
                    with journal.beside(), steps.averaged():
                        journal.evaluated(watched[stage].evaluation(painter, seen))
                if steps.powers and is_time(config.watch.average, seen, b):
                    with journal.beside():
                        snapshots.begin(seen, steps.powers)
                if is_time(config.watch.checkpoint, seen, b) or done or stopped:
                    journal.write(seen, step.lr)  # a line ends here, also where a run goes on
                    plain = {
                        "progress": {
                            "pictures": seen,
                            "examples": len(source),
                            "begins_averaged": begins_averaged,
                        },
                        "config": to_json(config),
                        "provenance": origin | {"rejected": commonest(rejects.reasons)},
                    }
                    with journal.beside():
                        steps.check_finite()
                        saving.begin(seen, steps.states | plain)
                        journal.draw()
                for written in (saving, snapshots):
                    if written.is_written():
                        with journal.beside():
                            written.end()
                if done or stopped:
                    break

        say, cut = processes.say, sum(processes.gathered(encoder.cut))
        for summary in filter(None, (rejects.summary(), steps.guard.summary())):
            say(summary)
        if cut:
            say(f"captions longer than the text encoder reads, and cut: {cut:,}")
        if rejects.problem:
            raise UserError(f"{rejects.problem}; {seen:,} pictures are learned and saved")
        if stopped:
            say(f"stopped after {seen:,} pictures, and saved; go on with: flowbrush train {run}")
        else:
            how = f"paint with: flowbrush sample {run} PROMPT ..."
            say(f"{run}: trained on {seen:,} pictures; {how}")
        processes.wait()  # torchrun ends all when one has ended: only when all is written
        return stop.exit_status if stopped else 0
