"""``Trainer(…, callbacks=[ProvenanceCallback()])`` tells the run what transformers knows.

Arguments without tokens, seeds, initial and final weights, the order of the data where that can be
had without drawing, metrics by step, checkpoints when they are written.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from provenance.capture.run import MAX_ITEMS, current_run
from provenance.integrations import quietly

_KNOWN = ("torch", "accelerate", "transformers")


class ProvenanceCallback(TrainerCallback):  # type: ignore[misc] # transformers may not be there
    """Reports a training; of several ranks the first one does, and of sharded weights none."""

    @quietly
    def on_train_begin(
        self, args: Any, state: Any, _: Any, model: Any = None, **_more: Any
    ) -> None:
        """Tell arguments, seeds and initial weights."""
        if state.is_world_process_zero:
            run = current_run()
            run.arguments(args)
            run.seed("transformers", args.seed)
            if args.data_seed is not None:
                run.seed("data", args.data_seed)
            if not (args.fsdp or args.deepspeed):
                run.initial_weights(model, state.global_step)

    @quietly
    def on_epoch_begin(self, _: Any, state: Any, __: Any, **more: Any) -> None:
        """Tell the order of the epoch's examples."""
        order = order_of(more["train_dataloader"])
        if order is not None and state.is_world_process_zero:
            current_run().data_order(order, state.global_step)

    @quietly
    def on_log(self, _: Any, state: Any, __: Any, logs: Any = None, **_more: Any) -> None:
        """Tell the metrics."""
        if state.is_world_process_zero:
            for name, value in (logs or {}).items():
                if isinstance(value, (int, float)):
                    current_run().metric(name, value, state.global_step)

    @quietly
    def on_save(self, args: Any, state: Any, _: Any, **_more: Any) -> None:
        """Tell the checkpoint that was written."""
        path = Path(args.output_dir, f"checkpoint-{state.global_step}")
        if state.is_world_process_zero and path.is_dir():
            current_run().checkpoint(path, state.global_step)

    @quietly
    def on_train_end(self, args: Any, state: Any, _: Any, model: Any = None, **_more: Any) -> None:
        """Tell the final weights."""
        if state.is_world_process_zero and not (args.fsdp or args.deepspeed):
            current_run().probe("finalWeights", model, state.global_step)


def order_of(loader: Any) -> list[int] | None:
    """Return the order of the next epoch; None if only drawing tells it.

    A sampler with a generator of its own is copied with that, so that its own does not move. Who
    knows what a sampler of the script does when it is asked.
    """
    batches = loader.batch_sampler
    batches = getattr(batches, "batch_sampler", batches)  # accelerate's share of a process
    sampler = copy.copy(batches.sampler)
    if type(sampler).__module__.partition(".")[0] not in _KNOWN or len(sampler) > MAX_ITEMS:
        return None
    if isinstance(sampler, torch.utils.data.SequentialSampler):
        return list(sampler)
    own = getattr(sampler, "generator", None)
    if own is not None:
        sampler.generator = torch.Generator(own.device)
        sampler.generator.set_state(own.get_state())
    elif not hasattr(sampler, "initial_seed"):  # accelerate's makes its generator of that
        return None
    return [int(index) for index in sampler]
