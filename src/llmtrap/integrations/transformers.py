"""Check a run of `transformers.Trainer` for new Correlation Traps while it trains.

from llmtrap.integrations.transformers import TrapCallback

trainer = Trainer(model, args, train_dataset=data, callbacks=[TrapCallback(every=50, on_trap="stop")])
"""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

from llmtrap.errors import MissingExtraError
from llmtrap.integrations.acting import TrapActions
from llmtrap.integrations.options import TrapOptions

try:
    from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
except ImportError as error:
    raise MissingExtraError.of("llmtrap.integrations.transformers", "train") from error


class TrapCallback(TrainerCallback):
    """Checks the weights every so many steps, logs what it finds through `Trainer.log`, and acts on a new trap.

    A check runs in the background on a copy of the weights. What is logged: `llmtrap/traps`, `llmtrap/new_traps`,
    `llmtrap/matrices_with_traps`, `llmtrap/strongest`, … (docs/training.md).

    Args:
        options: as the keywords of `TrapOptions`: every, on_trap, alpha, ….
    """

    def __init__(self, **options: Any):
        self.options = TrapOptions(**options)
        self.actions: TrapActions | None = None
        self._trainer: Trainer | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Take the weights as they are before the first step for what new traps are held against."""
        self._trainer = _trainer_of(self)
        self.actions = None
        if state.is_world_process_zero and kwargs.get("model") is not None:
            self.actions = TrapActions(self.options)
            self.actions.monitor.check(state.global_step, kwargs["model"])

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Report what ended meanwhile, and begin a check where one is due."""
        if self.actions is None:
            return control
        if self.options.is_due(state.global_step):
            self.actions.monitor.check(state.global_step, kwargs["model"])
        if self.actions.look(self._log):
            control.should_training_stop = True
        return control

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Begin a check where checks go with saves, and hold on to the checkpoint."""
        if self.actions is None:
            return
        self.actions.saved(state.global_step, Path(args.output_dir or "") / f"checkpoint-{state.global_step}")
        if self.options.every == "save":
            self.actions.monitor.check(state.global_step, kwargs["model"])

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Wait for the last check, and report it."""
        if self.actions is not None:
            self.actions.look(self._log, end=True)

    def _log(self, metrics: dict[str, float]) -> None:
        if self._trainer is not None:
            self._trainer.log(metrics)


def _trainer_of(callback: TrapCallback) -> Trainer | None:
    """The trainer that a callback belongs to: its `log` reaches every logger, and no hook hands it over."""
    trainers: list[Trainer] = [thing for thing in gc.get_objects() if issubclass(type(thing), Trainer)]
    for trainer in trainers:
        if any(known is callback for known in trainer.callback_handler.callbacks):
            return trainer
    return None
