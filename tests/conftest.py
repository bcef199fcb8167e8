"""Fixtures every folder may use: plain surroundings, the checkpoints of real trained weights, and a browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from tests.support.browser import chromium, open_file  # noqa: F401 - fixtures, defined once: one browser a process
from tests.support.real_weights import RECIPES, checkpoint
from tests.support.surroundings import CALLERS, hear_signals, plain_surroundings
from tests.support.wheels import OfflineError

pytest_plugins = ["tests.support.fast"]  # the option --fast

# No test is timed: on a busy machine one example may take any time.
settings.register_profile("llmtrap", deadline=None, max_examples=25)
settings.register_profile("thorough", deadline=None, max_examples=100)


@pytest.fixture(scope="session", autouse=True)
def _surroundings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing that the caller's terminal, shell or CI service has set changes what a test sees."""
    hear_signals()
    with plain_surroundings(tmp_path_factory.mktemp("home")):
        yield


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of `make test-flaky` and `make test-thorough`."""
    parser.addoption("--thorough", action="store_true", help="run the tests that take long too, with more examples")
    parser.addoption("--stress", action="store_true", help="interrupt commands at many moments instead of a few")
    parser.addoption("--repeat", type=int, default=1, help="run every test so many times")


def pytest_configure(config: pytest.Config) -> None:
    """Choose how many examples a law is tried on, before the first of them is imported."""
    settings.load_profile("thorough" if config.getoption("--thorough") else "llmtrap")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test `--repeat` times."""
    times = metafunc.config.getoption("--repeat")
    if times > 1:
        metafunc.fixturenames.append("_time")
        metafunc.parametrize("_time", range(times))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what takes long, unless `--thorough`; mark what needs real weights, so that `-m "not real"` does."""
    for item in items:
        if set(RECIPES) & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.real)
    if not config.getoption("--thorough"):
        left_out = [item for item in items if item.get_closest_marker("thorough")]
        items[:] = [item for item in items if not item.get_closest_marker("thorough")]
        config.hook.pytest_deselected(items=left_out)


@pytest.fixture(scope="session")
def thorough(request: pytest.FixtureRequest) -> bool:
    """Whether there is time: for more draws, more cases, larger matrices."""
    return bool(request.config.getoption("--thorough"))


def _real(name: str) -> Path:
    """A checkpoint's folder. Without a network its tests are skipped, but not in CI and for no other cause."""
    try:
        return checkpoint(name)
    except OfflineError as error:
        if CALLERS.get("CI", "").lower() in ("1", "true"):
            raise
        return pytest.skip(f"real weights: {error}")


@pytest.fixture(scope="session")
def minilm() -> Path:
    """MiniLM-L6: a BERT encoder, F32, one file."""
    return _real("minilm")


@pytest.fixture(scope="session")
def minilm_sre() -> Path:
    """A fine-tune of `minilm`."""
    return _real("minilm_sre")


@pytest.fixture(scope="session")
def smollm2_bf16() -> Path:
    """SmolLM2-135M-Instruct: a Llama decoder, BF16 shards, tied embedding."""
    return _real("smollm2_bf16")


@pytest.fixture(scope="session")
def smollm2_mxfp4() -> Path:
    """SmolLM2's matrices in the layout of GPT-OSS, experts in MXFP4."""
    return _real("smollm2_mxfp4")


@pytest.fixture(scope="session")
def smollm2_mxfp4_bf16() -> Path:
    """The exact BF16 upcast of `smollm2_mxfp4`, experts transposed."""
    return _real("smollm2_mxfp4_bf16")


@pytest.fixture(scope="session")
def smollm2_fp8_128() -> Path:
    """SmolLM2 in E4M3 with 128 × 128 tiles, ragged at the edges."""
    return _real("smollm2_fp8_128")


@pytest.fixture(scope="session")
def smollm2_fp8_64() -> Path:
    """SmolLM2 in E4M3 with 64 × 64 tiles."""
    return _real("smollm2_fp8_64")
