"""The callback in a real Lightning trainer, on a tiny Llama with an entry that grows."""

from __future__ import annotations

import csv
import logging
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from tests.support.tiny_llama import GROWING, Sentences, grow, tiny_llama

from llmtrap.integrations.lightning import TrapCallback

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning warns of this machine's cores and loaders

EVERY = 10


class Training(lightning.LightningModule):
    def __init__(self, by: float = 0.0, begin: int = 0):
        super().__init__()
        self.model, self.by, self.begin = tiny_llama(), by, begin

    def training_step(self, batch: dict[str, torch.Tensor], index: int) -> torch.Tensor:
        if self.global_step >= self.begin:
            grow(self.model, self.by)
        loss: torch.Tensor = self.model(**batch).loss
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-4)


def train(folder: Path, module: Training, *callbacks: Callback, steps: int = 40, **options: Any) -> lightning.Trainer:
    given = {"enable_checkpointing": False, **options}
    trainer = lightning.Trainer(
        max_steps=steps, accelerator="cpu", callbacks=list(callbacks),
        logger=CSVLogger(folder, flush_logs_every_n_steps=1),
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder, **given,
    )  # fmt: skip
    trainer.fit(module, torch.utils.data.DataLoader(Sentences(), batch_size=2))
    return trainer


def logged(folder: Path) -> list[dict[str, float]]:
    (file,) = folder.rglob("metrics.csv")
    with file.open(newline="") as rows:
        return [
            {key: float(value) for key, value in row.items() if value}
            for row in csv.DictReader(rows)
            if row.get("llmtrap/traps")
        ]


def test_a_growing_entry_is_reported_within_n_steps_and_stops_the_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, logger="llmtrap")
    callback = TrapCallback(every=EVERY, on_trap="stop", late="wait")
    trainer = train(tmp_path, Training(by=0.02), callback, steps=200)
    assert callback.actions is not None
    ((found_at, words),) = callback.actions.new_traps
    assert words.startswith(f"{GROWING} (entry [7, 11]")
    assert trainer.global_step <= found_at + EVERY < 60
    rows = logged(tmp_path)
    assert [row["llmtrap/checked_step"] for row in rows if row["llmtrap/new_traps"]] == [found_at]
    assert trainer.callback_metrics["llmtrap/new_traps"] == 1.0
    assert sum("a new Correlation Trap" in record.getMessage() for record in caplog.records) == 1


def test_every_check_is_logged_though_lightning_logs_every_fiftieth_step(tmp_path: Path) -> None:
    train(tmp_path, Training(), TrapCallback(every=5, late="wait"), steps=20, log_every_n_steps=50)
    assert [row["llmtrap/checked_step"] for row in logged(tmp_path)] == [0, 5, 10, 15, 20]


def test_a_step_of_several_batches_is_checked_once(tmp_path: Path) -> None:
    train(tmp_path, Training(), TrapCallback(every=5, late="wait"), steps=10, accumulate_grad_batches=3)
    assert [row["llmtrap/checked_step"] for row in logged(tmp_path)] == [0, 5, 10]


def test_the_last_checkpoint_before_the_trap_is_kept(tmp_path: Path) -> None:
    saving = ModelCheckpoint(tmp_path / "saved", filename="{step}", every_n_train_steps=5, save_top_k=1, monitor=None)
    callback = TrapCallback(every=EVERY, on_trap="keep", late="wait")
    train(tmp_path, Training(by=0.05, begin=25), saving, callback, steps=60, enable_checkpointing=True)
    assert callback.actions is not None
    kept = callback.actions.kept
    assert kept is not None
    step = int(kept.stem.rpartition("=")[2])
    assert callback.actions.new_traps[0][0] - 2 * EVERY <= step < callback.actions.new_traps[0][0]
    assert set(torch.load(kept, weights_only=False)) >= {"state_dict", "global_step"}
    assert sorted(path.name for path in (tmp_path / "saved").iterdir()) == [kept.name, "step=60.ckpt"]


def test_checks_go_with_saves_where_it_is_asked(tmp_path: Path) -> None:
    saving = ModelCheckpoint(tmp_path / "saved", every_n_train_steps=10)
    train(tmp_path, Training(), saving, TrapCallback(every="save", late="wait"), steps=20, enable_checkpointing=True)
    assert [row["llmtrap/checked_step"] for row in logged(tmp_path)] == [0, 10, 20]


def test_a_fault_in_the_background_is_said_once_and_training_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("no such luck")

    monkeypatch.setattr("llmtrap.integrations.checking.open_memory", broken)
    trainer = train(tmp_path, Training(), TrapCallback(every=5, late="wait"), steps=20)
    assert trainer.global_step == 20
    assert [r.getMessage() for r in caplog.records if r.name == "llmtrap"] == [
        "the check of step 0 failed, and training goes on: RuntimeError: no such luck"
    ]
