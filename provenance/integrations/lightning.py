"""``Trainer(callbacks=[ProvenanceCallback()])`` tells the run what Lightning knows.

Hyperparameters, initial and final weights, metrics as they are logged, checkpoints. The variable
``PROVENANCE_LIGHTNING=1`` adds the callback to every ``Trainer``, by an entry point, without a line
in the script. It is made for ``lightning`` or ``pytorch_lightning``, whichever is loaded.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any, Final

from provenance.capture.run import current_run
from provenance.integrations import quietly

VARIABLE: Final = "PROVENANCE_LIGHTNING"
_PACKAGES: Final = ("lightning.pytorch", "pytorch_lightning")


class _Hooks:
    """What the callback does; of several ranks the first one reports, of sharded weights none."""

    def __init__(self) -> None:
        self._told: set[tuple[str, int]] = set()
        self._checkpoints: set[str] = set()

    @quietly
    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Tell hyperparameters and initial weights."""
        if trainer.is_global_zero:
            run = current_run()
            if getattr(pl_module, "hparams", None):
                run.arguments(dict(pl_module.hparams))
            if seed := os.environ.get("PL_GLOBAL_SEED"):
                run.seed("lightning", int(seed))
            if _is_whole(trainer):
                run.initial_weights(pl_module, trainer.global_step)

    @quietly
    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        """Tell metrics as often as they are logged."""
        if trainer.global_step % (trainer.log_every_n_steps or 1) == 0:
            self.tell(trainer)

    @quietly
    def on_train_epoch_end(self, trainer: Any, _: Any) -> None:
        """Tell metrics of the epoch."""
        self.tell(trainer)

    @quietly
    def on_validation_end(self, trainer: Any, _: Any) -> None:
        """Tell metrics of a validation, but not of the check before the training."""
        if not trainer.sanity_checking:
            self.tell(trainer)

    @quietly
    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Tell what is left, and the final weights."""
        self.tell(trainer)
        if trainer.is_global_zero and _is_whole(trainer):
            current_run().probe("finalWeights", pl_module, trainer.global_step)

    def tell(self, trainer: Any) -> None:
        """Tell metrics and checkpoints that were not told."""
        if not trainer.is_global_zero:
            return
        step = trainer.global_step
        for name, value in trainer.logged_metrics.items():
            if (name, step) not in self._told:
                self._told.add((name, step))
                current_run().metric(name, value, step)
        for each in trainer.checkpoint_callbacks:
            for name in ("last_model_path", "best_model_path"):
                path = getattr(each, name, "")
                if path and path not in self._checkpoints and os.path.exists(path):  # noqa: PTH110
                    self._checkpoints.add(path)
                    current_run().checkpoint(path, step)


def _is_whole(trainer: Any) -> bool:
    name = type(trainer.strategy).__name__
    return not any(word in name for word in ("FSDP", "DeepSpeed", "ModelParallel"))


def _callback(package: str) -> type:
    return type("ProvenanceCallback", (_Hooks, import_module(package).Callback), {})


def __getattr__(name: str) -> type:
    """Make the callback when it is asked for: an entry point must import nothing."""
    if name != "ProvenanceCallback":
        raise AttributeError(name)
    loaded = (each for each in _PACKAGES if each in sys.modules)
    try:
        return _callback(next(loaded, _PACKAGES[0]))
    except ModuleNotFoundError:
        return _callback(_PACKAGES[1])


def _factory(package: str) -> Callable[[], list[Any]]:
    return lambda: [_callback(package)()] if os.environ.get(VARIABLE) == "1" else []


for_lightning, for_pytorch_lightning = map(_factory, _PACKAGES)
