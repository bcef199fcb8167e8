"""The callback in a real `transformers.Trainer`, on a tiny Llama with an entry that grows."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.support.tiny_llama import GROWING, PLACE, Sentences, grow, tiny_llama
from transformers import Trainer, TrainerCallback, TrainingArguments

from llmtrap.errors import UsageError
from llmtrap.integrations.transformers import TrapCallback
from llmtrap.trajectory.read import read_trajectory

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")

EVERY = 10


class Growing(TrainerCallback):
    """Lets the entry grow from a step on."""

    def __init__(self, begin: int = 0, by: float = 0.02):
        self.begin, self.by = begin, by

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step >= self.begin:
            grow(kwargs["model"], self.by)


class Listening(TrainerCallback):
    """What reaches the callbacks that write to TensorBoard, W&B and MLflow."""

    def __init__(self) -> None:
        self.heard: list[tuple[int, dict[str, float]]] = []

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        self.heard.append((state.global_step, dict(logs)))


def train(folder: Path, callback: TrapCallback, *others: TrainerCallback, steps: int = 30, **arguments: Any) -> Trainer:
    options = {"save_strategy": "no", "logging_steps": 1000, **arguments}
    args = TrainingArguments(
        str(folder / "out"), max_steps=steps, per_device_train_batch_size=2, report_to=[], use_cpu=True,
        disable_tqdm=True, **options,
    )  # fmt: skip
    trainer = Trainer(tiny_llama(), args, train_dataset=Sentences(), callbacks=[callback, *others])
    trainer.train()
    return trainer


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    caplog.set_level(logging.WARNING, logger="llmtrap")

    class Lines(list[str]):
        def __iter__(self) -> Any:
            return iter(record.getMessage() for record in caplog.records if record.name == "llmtrap")

    return Lines()


def test_a_growing_entry_is_reported_within_n_steps_and_stops_the_run(tmp_path: Path, said: list[str]) -> None:
    callback, listening = TrapCallback(every=EVERY, on_trap="stop", late="wait"), Listening()
    trainer = train(tmp_path, callback, Growing(), listening, steps=200)
    assert callback.actions is not None
    ((found_at, words),) = callback.actions.new_traps
    assert words.startswith(f"{GROWING} (entry [{PLACE[0]}, {PLACE[1]}], ")
    # It is seen at the first check after it stands clear, and the run ends before the next is over.
    assert trainer.state.global_step <= found_at + EVERY < 60
    assert sum("a new Correlation Trap" in line for line in said) == 1
    heard = [(step, logs) for step, logs in listening.heard if logs.get("llmtrap/new_traps") == 1.0]
    ((step, logs),) = heard
    assert step <= found_at + EVERY
    assert logs["llmtrap/checked_step"] == found_at
    assert logs["llmtrap/strongest"] > 1
    assert any(entry.get("llmtrap/new_traps") == 1.0 for entry in trainer.state.log_history)


def test_the_numbers_reach_tensorboard(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason="tensorboard")
    from transformers.integrations import TensorBoardCallback  # noqa: PLC0415

    callback = TrapCallback(every=EVERY, late="wait")
    train(tmp_path, callback, TensorBoardCallback(), steps=20, logging_steps=5)
    (written,) = {path.parent for path in tmp_path.rglob("events.out.tfevents*")}
    events = accumulator.EventAccumulator(str(written))
    events.Reload()
    assert "train/llmtrap/traps" in events.Tags()["scalars"]
    assert [event.value for event in events.Scalars("train/llmtrap/checked_step")] == [0, 10, 20]


@pytest.mark.filterwarnings("ignore::Warning:mlflow", "ignore::FutureWarning")
def test_the_numbers_reach_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow", reason="mlflow")
    from transformers.integrations import MLflowCallback  # noqa: PLC0415

    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    try:
        train(tmp_path, TrapCallback(every=EVERY, late="wait"), MLflowCallback(), steps=20, logging_steps=5)
    finally:
        mlflow.end_run()
    (written,) = (tmp_path / "store").rglob("metrics/llmtrap/checked_step")  # a line a value: time, value, step
    assert [float(line.split()[1]) for line in written.read_text().splitlines()] == [0, 10, 20]
    assert (written.parent / "traps").is_file()


def test_without_growth_nothing_is_new_and_the_run_ends_by_itself(tmp_path: Path, said: list[str]) -> None:
    callback, listening = TrapCallback(every=EVERY, on_trap="stop", late="wait"), Listening()
    trainer = train(tmp_path, callback, listening, steps=30)
    assert trainer.state.global_step == 30
    assert not list(said)
    found = [logs for _, logs in listening.heard if "llmtrap/traps" in logs]
    assert [logs["llmtrap/checked_step"] for logs in found] == [0, 10, 20, 30]
    assert {logs["llmtrap/new_traps"] for logs in found} == {0.0}
    assert {logs["llmtrap/measured"] for logs in found} == {16.0}


def test_what_does_not_train_is_not_measured_again(tmp_path: Path) -> None:
    listening = Listening()
    args = TrainingArguments(str(tmp_path), max_steps=10, per_device_train_batch_size=2, report_to=[], use_cpu=True,
                             disable_tqdm=True, save_strategy="no")  # fmt: skip
    model = tiny_llama()
    for name, parameter in model.named_parameters():
        parameter.requires_grad = "layers.1.mlp" in name
    callback = TrapCallback(every=5, late="wait")
    Trainer(model, args, train_dataset=Sentences(), callbacks=[callback, listening]).train()
    found = [logs["llmtrap/measured"] for _, logs in listening.heard if "llmtrap/measured" in logs]
    assert found == [16.0, 3.0, 3.0]


def test_the_last_checkpoint_before_the_trap_outlives_save_total_limit(tmp_path: Path, said: list[str]) -> None:
    callback = TrapCallback(every=EVERY, on_trap="keep", late="wait")
    trainer = train(
        tmp_path,
        callback,
        Growing(begin=25, by=0.05),
        steps=60,
        save_strategy="steps",
        save_steps=5,
        save_total_limit=1,
    )
    assert trainer.state.global_step == 60
    assert callback.actions is not None
    found_at = callback.actions.new_traps[0][0]
    kept = callback.actions.kept
    assert kept is not None
    step = int(re.sub(r"\D", "", kept.name))
    assert found_at - 2 * EVERY <= step < found_at
    assert (kept / "model.safetensors").stat().st_size > 100_000
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [kept.name, "checkpoint-60"]
    assert any("the last checkpoint before it" in line and str(kept) in line for line in said)


def test_checks_go_with_saves_where_it_is_asked(tmp_path: Path) -> None:
    listening = Listening()
    callback = TrapCallback(every="save", late="wait")
    train(tmp_path, callback, listening, steps=20, save_strategy="steps", save_steps=10)
    assert [logs["llmtrap/checked_step"] for _, logs in listening.heard if "llmtrap/traps" in logs] == [0, 10, 20]


def test_alpha_of_a_sample_that_rotates(tmp_path: Path) -> None:
    listening = Listening()
    callback = TrapCallback(every=5, alpha=True, alpha_seconds=1e-9, late="wait", include=("*.mlp.*",))
    train(tmp_path, callback, listening, steps=20)
    found = [logs for _, logs in listening.heard if "llmtrap/alpha_median" in logs]
    counts = [logs["llmtrap/alpha_matrices"] for logs in found]
    assert counts == sorted(counts)
    assert 1 < counts[-1] <= 5  # one more at each check, as far as its fit is reliable
    assert all(1 < logs["llmtrap/alpha_min"] <= logs["llmtrap/alpha_median"] for logs in found)


def test_the_run_is_written_as_a_trajectory(tmp_path: Path) -> None:
    file = tmp_path / "t.json"
    callback = TrapCallback(every=EVERY, late="wait", trajectory=file)
    train(tmp_path, callback, Growing(by=0.05), steps=20)
    trajectory = read_trajectory(file)
    assert [point.step for point in trajectory.points] == [0, 10, 20]
    (trap,) = [trap for trap in trajectory.traps if trap.kind == "entry" and trap.matrix == GROWING]
    assert trap.growth is not None
    assert trap.growth > 1


def test_a_fault_in_the_background_is_said_once_and_training_goes_on(
    tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("no such luck")

    monkeypatch.setattr("llmtrap.integrations.checking.open_memory", broken)
    trainer = train(tmp_path, TrapCallback(every=5, on_trap="stop", late="wait"), steps=20)
    assert trainer.state.global_step == 20
    assert list(said) == ["the check of step 0 failed, and training goes on: RuntimeError: no such luck"]


def test_a_logger_that_fails_does_not_end_training(tmp_path: Path, said: list[str]) -> None:
    class Broken(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            if "llmtrap/traps" in logs:
                raise ConnectionError("the server is away")

    trainer = train(tmp_path, TrapCallback(every=5, late="wait"), Broken(), steps=10)
    assert trainer.state.global_step == 10
    assert any("cannot be logged, and training goes on: ConnectionError: the server is away" in line for line in said)


def test_nan_in_the_weights_is_a_number_and_no_end(tmp_path: Path) -> None:
    class Breaking(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 8:
                with torch.no_grad():
                    kwargs["model"].model.layers[0].mlp.up_proj.weight[0, 0] = float("nan")

    listening = Listening()
    train(tmp_path, TrapCallback(every=5, late="wait"), Breaking(), listening, steps=10, max_grad_norm=0.0)
    found = [logs["llmtrap/non_finite"] for _, logs in listening.heard if "llmtrap/non_finite" in logs]
    assert found[:2] == [0.0, 0.0]
    assert found[-1] >= 1.0


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"every": 0}, "every is 0"), ({"every": "epoch"}, "every is 'epoch'"), ({"on_trap": "explode"}, "'explode'"),
        ({"on_trap": ()}, "nothing"), ({"late": "never"}, "late is 'never'"),
    ],
)  # fmt: skip
def test_wrong_options_are_refused_at_once(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        TrapCallback(**options)
