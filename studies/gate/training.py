"""A tiny language model, trained on English prose, for the studies of the gate that need a real fine-tune.

The text is Python's own reference, of one release and kept here (`text/`), read as bytes.
"""

from __future__ import annotations

import lzma
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.utils import logging

CONTEXT = 32
BATCH = 8
VOCABULARY = 128
TEXT = Path(__file__).parent / "text" / "python_topics.txt.xz"


@dataclass(frozen=True)
class Texts:
    """Bytes for the base, a small set for the fine-tune, and text that no training sees."""

    base: torch.Tensor
    small: torch.Tensor
    held_out: torch.Tensor


def texts(small: int = 6_000) -> Texts:
    """Cut the prose into the three."""
    codes = torch.tensor([min(byte, VOCABULARY - 1) for byte in lzma.decompress(TEXT.read_bytes())], dtype=torch.long)
    held_out, rest = codes[:40_000], codes[40_000:]
    return Texts(base=rest[small:], small=rest[:small], held_out=held_out)


def new_model(seed: int = 0) -> GPT2LMHeadModel:
    """Two layers of width 64, without dropout: small enough for a test, wide enough for counts of traps."""
    torch.manual_seed(seed)
    logging.set_verbosity_error()  # it warns of a setting that plays no part here
    logging.disable_progress_bar()
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=VOCABULARY, n_positions=CONTEXT, n_embd=64, n_layer=2, n_head=4,
            resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=None, eos_token_id=None,
        )
    )  # fmt: skip


def train(
    model: GPT2LMHeadModel, text: torch.Tensor, steps: int, rate: float, seed: int
) -> Iterator[tuple[int, float]]:
    """Adam without weight decay on random windows; yield (step, loss of the batch)."""
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(model.parameters(), lr=rate)
    model.train()
    for step in range(1, steps + 1):
        places = torch.randint(0, len(text) - CONTEXT, (BATCH,), generator=generator)
        batch = torch.stack([text[place : place + CONTEXT] for place in places.tolist()])
        loss = model(batch, labels=batch).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        yield step, float(loss.detach())


@torch.no_grad()
def loss_on(model: GPT2LMHeadModel, text: torch.Tensor, windows: int = 64) -> float:
    """Mean loss over windows spread evenly over a text."""
    places = torch.linspace(0, len(text) - CONTEXT - 1, windows).long().tolist()
    batch = torch.stack([text[place : place + CONTEXT] for place in places])
    model.eval()
    loss = float(model(batch, labels=batch).loss)
    model.train()
    return loss


def save(model: GPT2LMHeadModel, folder: Path) -> Path:
    """As a checkpoint that the gate reads."""
    model.save_pretrained(folder)
    return folder
