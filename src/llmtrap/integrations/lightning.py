"""Check a run of Lightning for new Correlation Traps while it trains.

from llmtrap.integrations.lightning import TrapCallback

trainer = lightning.Trainer(callbacks=[TrapCallback(every=50, on_trap="stop")])
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llmtrap.errors import MissingExtraError
from llmtrap.integrations.acting import TrapActions
from llmtrap.integrations.options import TrapOptions

try:
    from lightning.pytorch import LightningModule, Trainer
    from lightning.pytorch.callbacks import Callback, ModelCheckpoint
except ImportError as error:
    raise MissingExtraError.of("llmtrap.integrations.lightning", "train") from error


class TrapCallback(Callback):
    """Checks the weights every so many steps, logs to every logger of the trainer, and acts on a new trap.

    A check runs in the background on a copy of the weights. The numbers are logged through `pl_module.log_dict`, so
    that other callbacks may watch them, and sent to the loggers at once: Lightning drops what is logged at a step that
    is not one of `log_every_n_steps`. Their names: `llmtrap/traps`, `llmtrap/new_traps`, … (docs/training.md).

    Args:
        options: as the keywords of `TrapOptions`: every, on_trap, alpha, ….
    """

    def __init__(self, **options: Any):
        self.options = TrapOptions(**options)
        self.actions: TrapActions | None = None
        self._saved: set[str] = set()
        self._checked = -1

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the weights as they are before the first step for what new traps are held against."""
        self.actions = None
        if trainer.is_global_zero:
            self.actions = TrapActions(self.options)
            self.actions.monitor.check(trainer.global_step, pl_module)
            self._checked = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Report what ended meanwhile, and begin a check where one is due."""
        if self.actions is None:
            return
        step = trainer.global_step
        # With accumulated gradients several batches make a step.
        if self.options.is_due(step) and step != self._checked:
            self._checked = step
            self.actions.monitor.check(step, pl_module)
        for path in _saved_by(trainer) - self._saved:
            self._saved.add(path)
            self.actions.saved(step, Path(path))
        if self.actions.look(lambda metrics: _log(trainer, pl_module, metrics)):
            trainer.should_stop = True

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Begin a check where checks go with saves."""
        if self.actions is not None and self.options.every == "save":
            self.actions.monitor.check(trainer.global_step, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Wait for the last check, and report it."""
        if self.actions is not None:
            self.actions.look(lambda metrics: _to_loggers(trainer, metrics), end=True)


def _saved_by(trainer: Trainer) -> set[str]:
    """The checkpoints that the trainer's callbacks hold now."""
    callbacks = [it for it in trainer.checkpoint_callbacks if isinstance(it, ModelCheckpoint)]
    return {path for it in callbacks for path in (*it.best_k_models, it.last_model_path, it.best_model_path) if path}


def _log(trainer: Trainer, pl_module: LightningModule, metrics: dict[str, float]) -> None:
    pl_module.log_dict(metrics, on_step=True, on_epoch=False, logger=False, rank_zero_only=True)
    _to_loggers(trainer, metrics)


def _to_loggers(trainer: Trainer, metrics: dict[str, float]) -> None:
    for logger in trainer.loggers:
        logger.log_metrics(metrics, step=trainer.global_step)
