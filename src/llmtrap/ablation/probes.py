"""What a model is asked: a passage of text, or its own samples where there is no tokenizer for it."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llmtrap.ablation.gguf_models import gguf_tokenizer, is_gguf
from llmtrap.ablation.streaming import StreamedModel
from llmtrap.checkpoint import Checkpoint
from llmtrap.checkpoint.sources.base import ByteRange
from llmtrap.documents import DocumentError, read_document
from llmtrap.errors import TargetError

BUNDLED = "bundled"
_MOST_TOKENIZER_BYTES = 64 << 20
# A hundred times what the sequences that are asked for take.
_MOST_TEXT_BYTES = 16 << 20


@dataclass(frozen=True)
class TextProbe:
    """Token ids of a text, [sequences, length], and where it comes from."""

    tokens: Tensor
    source: str


def bundled_passage() -> str:
    """About 1,200 words of plain technical English, written for llmtrap (Apache-2.0)."""
    return resources.files("llmtrap.ablation").joinpath("passage.txt").read_text(encoding="utf-8")


def text_probe(
    checkpoint: Checkpoint, text: Path | None, sequences: int, length: int, first: int | None
) -> TextProbe | None:
    """A text cut into sequences, by the checkpoint's own tokenizer.json; None where the checkpoint has none.

    Args:
        checkpoint: whose folder may hold tokenizer.json.
        text: a UTF-8 file; None takes the bundled passage.
        sequences: at most so many.
        length: tokens of each, the first one included.
        first: id of the token that begins a text, or None.

    Raises:
        TargetError: the text cannot be read, is too short, or there is a text and no tokenizer.
    """
    tokenizer = _tokenizer(checkpoint)
    if tokenizer is None:
        if text is not None:
            raise TargetError(
                "the checkpoint has no tokenizer.json, so a text cannot be turned into tokens",
                file=checkpoint.catalogue.identity.name,
                remedy="Save the tokenizer beside the weights (tokenizer.save_pretrained), or leave out --text",
            )
        return None
    try:
        words = bundled_passage() if text is None else read_document(text, _MOST_TEXT_BYTES, "text").decode()
    except DocumentError as error:
        raise TargetError(error.problem, file=str(text), remedy=error.remedy) from error
    except UnicodeDecodeError:
        raise TargetError("the text is not UTF-8", file=str(text), remedy="Give a UTF-8 text file") from None
    ids = tokenizer.encode(words, add_special_tokens=False).ids
    step = length - (first is not None)
    count = min(sequences, len(ids) // step)
    if count < 2:
        raise TargetError(
            f"the text has {len(ids)} tokens, and two sequences of {length} are the least",
            file=str(text or "the bundled passage"),
            remedy="Give a longer text",
        )
    cut = torch.tensor(ids[: count * step]).reshape(count, step)
    if first is not None:
        cut = torch.cat([torch.full((count, 1), first), cut], dim=1)
    return TextProbe(cut, BUNDLED if text is None else text.name)


def random_tokens(model: StreamedModel, sequences: int, length: int, first: int | None, seed: int) -> Tensor:
    """Uniform random tokens after the first one, [sequences, length]."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(model.vocabulary, (sequences, length), generator=generator)
    if first is not None:
        tokens[:, 0] = first
    return tokens


def resampled(logits_of: Any, tokens: Tensor, seed: int) -> Tensor:
    """Every position drawn anew, in parallel, from what the model predicts after those before it.

    One such sweep takes random tokens most of the way to the model's own samples: uniform random tokens misjudge an
    entry's effect by up to 67 times, resampled ones by a factor of 2 in the median (docs/ablation.md).

    Args:
        logits_of: gives the logits of one sequence, [1, length, vocabulary], by its number.
        tokens: [sequences, length]; the first of each stays.
        seed: of the draws.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = tokens.clone()
    for k in range(tokens.shape[0]):
        chances = torch.softmax(logits_of(k)[0, :-1].double().cpu(), -1)
        drawn[k, 1:] = torch.multinomial(chances, 1, generator=generator).squeeze(1)
    return drawn


def first_token(checkpoint: Checkpoint) -> int | None:
    """The token that begins a text, as config.json or the keys of a GGUF file name it."""
    config = checkpoint.catalogue.config
    if is_gguf(checkpoint):
        keys = next(iter(checkpoint.catalogue.metadata.values()))
        config = {"bos_token_id": keys.get("tokenizer.ggml.bos_token_id")}
    stated = config.get("bos_token_id")
    if stated is None and isinstance(config.get("text_config"), dict):
        stated = config["text_config"].get("bos_token_id")
    return stated if isinstance(stated, int) and not isinstance(stated, bool) and stated >= 0 else None


def _tokenizer(checkpoint: Checkpoint) -> Any:
    from tokenizers import Tokenizer  # noqa: PLC0415 - an extra

    entry = next((file for file in checkpoint.source.files() if file.name == "tokenizer.json"), None)
    if entry is None:
        return gguf_tokenizer(checkpoint) if is_gguf(checkpoint) else None
    if entry.size > _MOST_TOKENIZER_BYTES:
        problem = f"tokenizer.json has {entry.size} bytes, more than any tokenizer ({_MOST_TOKENIZER_BYTES})"
        raise TargetError(problem, file="tokenizer.json", remedy="Fetch the file again")
    try:
        return Tokenizer.from_buffer(checkpoint.source.read(ByteRange(entry.name, 0, entry.size)).tobytes())
    except Exception as error:
        raise TargetError(
            f"tokenizer.json cannot be read: {error}", file="tokenizer.json", remedy="Fetch the file again"
        ) from None
