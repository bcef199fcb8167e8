"""Report documents for tests: deterministic, with spectra drawn from the laws that real ones follow."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from llmtrap.report.coverage import count_coverage
from llmtrap.report.document import Amount, FailedMatrix, File, Matrix, Report, Settings, SkippedTensor, Target, Tool
from llmtrap.report.judging import judged_as_usual
from llmtrap.report.summary import summarise
from llmtrap.spectra.measured import Alpha, Band, Cause, Histogram, NonFinite, Shuffled, Spectrum, Trap, Traps

SETTINGS = Settings(
    traps="auto",
    trap_rule="tracy-widom",
    alpha=True,
    include=(),
    exclude=(),
    split_fused=False,
    shuffles=5,
    seed=0,
    backend="numpy",
)

HOSTILE_NAMES = (
    "</script><script>document.title='owned'</script>",
    "<img src=x onerror=\"document.title='owned'\">",
    "\"quoted\" & 'quoted' `ticked` | piped | <b>bold</b>",
    "{{ 7 * 7 }} {% raw %}",
    '=HYPERLINK("http://example.invalid","go")',
    "layers.0.\u202egnp.exe\u202c.attention",
    "layers.1.\x1b[31mred\x1b[0m\x07\r\n.q",
    "layers.2." + "long_name." * 400,
    "<!--<script>",
    "__proto__",
    "layers.99999999999999999999.attention.q",
)


def histogram(values: np.ndarray, bins: int = 64) -> Histogram:
    """Counts in logarithmic bins from the least to the greatest positive value."""
    positive = values[values > values.max() * 1e-12]
    edges = np.geomspace(positive.min() * 0.999, positive.max() * 1.001, bins + 1)
    counts, edges = np.histogram(positive, bins=edges)
    return Histogram(edges=tuple(float(e) for e in edges), counts=tuple(int(c) for c in counts))


@cache
def _bulk(ratio: float, count: int = 400) -> np.ndarray:
    """Quantiles of the Marchenko-Pastur law of ratio columns / rows <= 1, for entries of unit variance, over rows."""
    low, high = (1 - math.sqrt(ratio)) ** 2, (1 + math.sqrt(ratio)) ** 2
    x = np.linspace(max(low, 1e-6), high, 20_001)
    share = np.cumsum(np.sqrt(np.maximum((high - x) * (x - low), 0)) / x)
    return np.interp((np.arange(count) + 0.5) / count, share / share[-1], x)


def edge_of(rows: int, columns: int, variance: float, z: float = 6.2086) -> float:
    """The eigenvalue at z on the Tracy-Widom scale (definitions of the report's `edge`)."""
    long, short = max(rows, columns), min(rows, columns)
    root = math.sqrt(long - 1) + math.sqrt(short)
    scale: float = root * (1 / math.sqrt(long - 1) + 1 / math.sqrt(short)) ** (1 / 3)
    return variance * (root**2 + z * scale)


def matrix(
    identity: str,
    *,
    layer: int | None = None,
    role: str = "q",
    expert: int | None = None,
    shape: tuple[int, int] = (512, 384),
    tensor: str | None = None,
    encoding: str = "bf16",
    alpha: float = 3.2,
    seed: int = 0,
    method: str = "certified",
    causes: Sequence[tuple[str, float]] = (),
    shuffled: bool = False,
    low: int | None = None,
    high: int | None = None,
    non_finite: NonFinite | None = None,
) -> Matrix:
    """One measured matrix. `causes` names its traps, each with its strength (times the random edge)."""
    tensor = tensor if tensor is not None else f"model.{identity}.weight"
    common: dict[str, Any] = {
        "id": identity, "tensor": tensor, "layer": layer, "role": role, "expert": expert, "shape": shape,
        "encoding": encoding, "seconds": 0.25,
    }  # fmt: skip
    if non_finite is not None:
        return Matrix(**common, alpha=None, spectrum=None, traps=None, non_finite=non_finite)
    rng = np.random.default_rng([seed, *identity.encode()[:64]])
    variance = 0.02**2 * (1 + 0.2 * rng.random())
    long, short = max(shape), min(shape)
    scale = long * variance
    bulk = _bulk(round(short / long, 3))
    drawn = rng.choice(bulk, size=min(short, 1200))
    tail = min(max(12, len(drawn) // 5), len(drawn) // 2)
    xmin = float(np.quantile(drawn, 0.8))
    power = xmin * (1 - rng.random(tail)) ** (-1 / (alpha - 1))
    esd = np.sort(np.concatenate([drawn[drawn <= xmin], np.minimum(power, xmin * 40)])) * scale
    reliable = short >= 50 and tail >= 8
    band: Band = "over" if alpha < 2 else "under" if alpha > 6 else "well"
    return Matrix(
        **common,
        alpha=Alpha(
            value=alpha,
            sigma=(alpha - 1) / math.sqrt(tail),
            xmin=xmin * scale,
            ks=0.03 + 0.04 * float(rng.random()),
            tail=tail,
            band=band if reliable else None,
            reliable=reliable,
            reason=None if reliable else "fewer than 50 usable eigenvalues",
        ),
        spectrum=Spectrum(
            spectral_norm=float(np.sqrt(esd[-1])),
            frobenius_norm=float(np.sqrt(esd.sum())),
            stable_rank=float(esd.sum() / esd[-1]),
            hard_rank=short,
            entropy=float(0.8 + 0.1 * rng.random()),
            alpha_weighted=alpha * math.log10(esd[-1]),
            log10_spectral_norm=math.log10(esd[-1]) / 2,
            rank_deficient=False,
            precision="float32/float64",
            histogram=histogram(esd),
        ),
        traps=_traps(rng, shape, variance, method, causes, shuffled, low, high),
        non_finite=None,
    )


def _traps(
    rng: np.random.Generator,
    shape: tuple[int, int],
    variance: float,
    method: str,
    causes: Sequence[tuple[str, float]],
    shuffled: bool,
    low: int | None,
    high: int | None,
) -> Traps:
    long, short = max(shape), min(shape)
    edge = edge_of(*shape, variance)
    found = tuple(
        Trap(
            eigenvalue=strength * edge_of(*shape, variance, 0),
            z=(strength - 1) * short**0.67 * 1.6,
            strength=strength,
            cause=_cause(kind, strength, shape, variance, rng),
        )
        for kind, strength in causes
    )
    shift = sum(kind == "mean_shift" for kind, _ in causes)
    measured = method == "measured"
    top = max((trap.z for trap in found), default=float(rng.normal(-1.2, 1.1)))
    wobbles = low is not None and high is not None and low < high
    entries = [strength for kind, strength in causes if kind == "entry"]
    e = max(entries, default=0.1 + 0.1 * float(rng.random())) * (2.0 if entries else 1.0)
    bulk = None
    if shuffled and measured:
        values = _bulk(round(short / long, 3), short) * long * variance
        values = np.concatenate([values, [trap.eigenvalue for trap in found]])
        bulk = Shuffled(ks=0.011, p_value=0.73, histogram=histogram(values))
    return Traps(
        count=len(causes),
        centred=len(causes) - shift,
        mean_shift=shift,
        low=len(causes) if low is None else low,
        high=len(causes) if high is None else high,
        reliable=short >= 50,
        kurtosis=46.3 if any(kind == "heavy_tail" for kind, _ in causes) else 3.0 + float(rng.random()),
        max_sigmas=max((abs(t.cause.sigmas) for t in found if t.cause.sigmas), default=4.9),
        method=method,  # type: ignore[arg-type]
        rule="tracy-widom",
        entry_ratio=e,
        mean_ratio=5.4 if shift else 0.02,
        mean=-0.148 * math.sqrt(variance) if shift else 1e-5,
        bulk_variance=variance,
        edge=edge,
        edge_z=None if edge is None else 6.2086,
        top_z=top if measured or method == "predicted" else None,
        top_z_low=(4.9 if wobbles else top - 0.4) if measured else None,
        top_z_high=(top + 0.9 if not wobbles else max(top, 6.9)) if measured else None,
        shuffles=5 if measured and (causes or wobbles) else 1 if measured else 0,
        found=found,
        shuffled=bulk,
    )


def _cause(kind: str, strength: float, shape: tuple[int, int], variance: float, rng: np.random.Generator) -> Cause:
    if kind != "entry":
        return Cause(kind=kind)  # type: ignore[arg-type]
    sigmas = math.sqrt(strength) * (shape[0] * shape[1]) ** 0.25 * 1.4
    row, column = int(rng.integers(shape[0])), int(rng.integers(shape[1]))
    return Cause(kind="entry", row=row, column=column, value=sigmas * math.sqrt(variance), sigmas=sigmas)


def report(
    matrices: Sequence[Matrix],
    *,
    name: str = "org/model",
    revision: str | None = "0123456789abcdef0123456789abcdef01234567",
    settings: Settings = SETTINGS,
    skipped: Sequence[SkippedTensor] = (),
    failed: Sequence[FailedMatrix] = (),
    files: Sequence[File] | None = None,
    seconds: float = 41.0,
) -> Report:
    """A whole document of these matrices, with the summary that an audit would compute."""
    held = sum(m.shape[0] * m.shape[1] for m in matrices)
    coverage = count_coverage(
        len(matrices) + len(failed), Amount(count=len(matrices), parameters=held, bytes=2 * held), skipped, failed
    )
    made = Report(
        tool=Tool(name="llmtrap", version="0.1.0"),
        target=Target(
            name=name,
            kind="hub",
            revision=revision,
            family="llama",
            files=tuple(
                files
                if files is not None
                else [File(path="model.safetensors", bytes=988_097_824, digest="sha256:" + "5f" * 32)]
            ),
            encodings=tuple(sorted({m.encoding for m in matrices})),
        ),
        settings=settings,
        coverage=coverage,
        summary=summarise(matrices, coverage, settings, seconds, 1_250_000_000),
        matrices=tuple(matrices),
    )
    return judged_as_usual(made)


_DENSE = (
    ("attention.q", (896, 896)),
    ("attention.k", (128, 896)),
    ("attention.v", (128, 896)),
    ("attention.o", (896, 896)),
    ("mlp.gate", (4864, 896)),
    ("mlp.up", (4864, 896)),
    ("mlp.down", (896, 4864)),
)


def dense(layers: int = 12, **changes: dict[str, Any]) -> list[Matrix]:
    """The matrices of a small dense transformer; `changes` maps an id (dots as `__`) to arguments of `matrix`."""
    wanted = {key.replace("__", "."): value for key, value in changes.items()}
    made = [
        matrix("embedding", role="embedding", shape=(151936, 896), alpha=5.1, seed=1, **wanted.get("embedding", {}))
    ]
    for layer in range(layers):
        for index, (role, shape) in enumerate(_DENSE):
            identity = f"layers.{layer}.{role}"
            arguments: dict[str, Any] = {
                "layer": layer, "role": role, "shape": shape, "seed": layer * 7 + index,
                "alpha": 2.3 + 2.9 * abs(math.sin(1.7 * layer + index)),
            }  # fmt: skip
            made.append(matrix(identity, **{**arguments, **wanted.get(identity, {})}))
    return made


SKIPPED = tuple(
    SkippedTensor(tensor=name, reason="one-dimensional", kind="one_dimensional", parameters=896, bytes=1792)
    for name in (
        "model.layers.0.input_layernorm.weight",
        "model.layers.0.self_attn.q_proj.bias",
        "model.norm.weight",
    )
)


@cache
def clean() -> Report:
    """No traps, every fit reliable and well trained but one."""
    return report(dense(layers__7__mlp__down={"alpha": 6.8}), name="org/clean-0.5b", skipped=SKIPPED)


@cache
def trapped() -> Report:
    """Every cause, an edge case and a matrix too small to trust."""
    extra = matrix("router", role="router", shape=(32, 896), method="measured", causes=[("entry", 1.4)], alpha=3.0)
    return report(
        [
            *dense(
                layers__0__mlp__down={
                    "method": "measured",
                    "causes": [("entry", 9.4), ("entry", 1.7)],
                    "shuffled": True,
                },
                layers__3__attention__k={"method": "measured", "causes": [("heavy_tail", 2.1)], "shuffled": True},
                layers__5__mlp__gate={"method": "measured", "causes": [("mean_shift", 5.4)], "shuffled": True},
                layers__8__attention__o={"method": "measured", "low": 0, "high": 1},
                layers__9__mlp__up={"method": "measured"},
                layers__11__attention__v={"alpha": 1.72, "method": "measured"},
            ),
            extra,
        ],
        name="org/trapped-0.5b",
        skipped=SKIPPED,
    )


@cache
def trapped_base() -> Report:
    """What `trapped` may have been tuned from: one trap of its own, the rest not yet there."""
    return report(
        dense(
            layers__3__attention__k={"method": "measured", "causes": [("heavy_tail", 2.0)]},
            layers__6__mlp__up={"method": "measured", "causes": [("entry", 1.5)]},
            layers__11__attention__v={"alpha": 2.61, "method": "measured"},
            layers__4__mlp__up={"alpha": 2.0},
        ),
        name="org/base-0.5b",
        skipped=SKIPPED,
    )


@cache
def over_trained() -> Report:
    """No trap, yet a third of the layers below 2."""
    low = {f"layers__{layer}__mlp__down": {"alpha": 1.4 + 0.1 * layer} for layer in range(4)}
    return report(dense(4, **low), name="org/over-trained")


@cache
def partial() -> Report:
    """Some matrices failed, some were left undecided."""
    failed = FailedMatrix(
        id="layers.2.mlp.down", tensor="model.layers.2.mlp.down.weight", error="the file is cut short: 12 of 4096 bytes"
    )
    undecided = {"layers__1__mlp__up": {"method": "undecided"}}
    matrices = [m for m in dense(3, **undecided) if m.id != failed.id]
    settings = SETTINGS.model_copy(update={"traps": "certify"})
    return report(matrices, name="/data/checkpoints/run 7/step-1000", revision=None, failed=[failed], settings=settings)


@cache
def empty() -> Report:
    """Nothing was there to audit."""
    return report([], name="org/nothing", skipped=SKIPPED, files=[])


@cache
def broken() -> Report:
    """NaN in one matrix."""
    bad = NonFinite(nan=3, inf=1, row=17, column=2048)
    return report(dense(2, layers__1__mlp__up={"non_finite": bad}), name="org/broken")


@cache
def hostile() -> Report:
    """Names that try to break out of every output."""
    matrices = [
        matrix(name, role=name, tensor=name, shape=(128, 96), method="measured", causes=[("entry", 2.0 + index)])
        for index, name in enumerate(HOSTILE_NAMES)
    ]
    evil = HOSTILE_NAMES[0]
    return report(
        matrices,
        name=evil,
        revision=HOSTILE_NAMES[1],
        skipped=[SkippedTensor(tensor=name, reason=name) for name in HOSTILE_NAMES],
        failed=[FailedMatrix(id=name, tensor=name, error=name) for name in HOSTILE_NAMES],
        files=[File(path=name, bytes=1, digest=name) for name in HOSTILE_NAMES],
    )


def gpt_oss(layers: int, experts: int, name: str, every_shuffled: bool = False) -> Report:
    """A mixture of experts as large as GPT-OSS: 24 x 32 has 1,658 matrices, 36 x 128 has 9,398."""
    made = [
        matrix("embedding", role="embedding", shape=(201088, 2880), alpha=4.4, seed=3),
        matrix("unembedding", role="unembedding", shape=(201088, 2880), alpha=3.9, seed=4),
    ]
    rng = np.random.default_rng(20)
    small = (("attention.q", (4096, 2880)), ("attention.k", (512, 2880)), ("attention.v", (512, 2880)),
             ("attention.o", (2880, 4096)), ("router", (experts, 2880)))  # fmt: skip
    patterns = [
        (role, matrix(f"layers.0.experts.{k}.{role}", role=role, shape=shape, encoding="mxfp4", seed=k,
                      method="measured" if trap or every_shuffled else "certified", causes=trap,
                      shuffled=bool(trap) or every_shuffled, alpha=2.2 + 0.5 * k))
        for role, shape in (("gate_up", (5760, 2880)), ("down", (2880, 2880)))
        for k, trap in enumerate([(), (), (), (), (), (), (), (("entry", 3.1),), (("heavy_tail", 1.3),)])
    ]  # fmt: skip
    for layer in range(layers):
        for role, shape in small:
            made.append(matrix(f"layers.{layer}.{role}", layer=layer, role=role, shape=shape,
                               alpha=2.2 + 3 * float(rng.random()), seed=layer,
                               method="measured" if every_shuffled else "certified"))  # fmt: skip
        for expert in range(experts):
            for role in ("gate_up", "down"):
                choices = [pattern for kind, pattern in patterns if kind == role]
                pick = int(rng.integers(7)) if rng.random() > 0.006 else 7 + int(rng.integers(2))
                made.append(
                    choices[pick].model_copy(
                        update={
                            "id": f"layers.{layer}.experts.{expert}.{role}",
                            "tensor": f"model.layers.{layer}.mlp.experts.{role}_proj_blocks",
                            "layer": layer,
                            "expert": expert,
                        }
                    )
                )
    skipped = [
        SkippedTensor(tensor=f"model.layers.{i}.input_layernorm.weight", reason="one-dimensional")
        for i in range(layers)
    ]
    files = [
        File(path=f"model-{i:05d}-of-00003.safetensors", bytes=4_600_000_000, digest="sha256:" + "ab" * 32)
        for i in range(3)
    ]
    return report(made, name=name, skipped=skipped, files=files, seconds=5400)


@cache
def gpt_oss_20b() -> Report:
    """1,658 matrices."""
    return gpt_oss(24, 32, "openai/gpt-oss-20b")


@cache
def gpt_oss_120b() -> Report:
    """9,398 matrices, each with both histograms: the largest page there is."""
    return gpt_oss(36, 128, "openai/gpt-oss-120b", every_shuffled=True)


def verdict_section(page: str) -> str:
    """What a page says first: its glossary further down has every verdict's word."""
    found = re.search(r'<section id="verdict".*?</section>', page, re.DOTALL)
    assert found is not None
    return found[0]
