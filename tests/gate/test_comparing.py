"""Two checkpoints, paired from headers: layouts that differ where weights do not, and changes that harm or do not."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file
from tests.support.planting import noise

from llmtrap.audit import AuditSettings, audit
from llmtrap.checkpoint import open_checkpoint
from llmtrap.checkpoint.sources import ByteRange, LocalSource
from llmtrap.gate import GateOptions, Judgement, LoadedPolicy, Policy, gate
from llmtrap.gate import unchanged as comparison
from llmtrap.gate.pairing import pair_matrices
from llmtrap.report.json import write_json

DEFAULT = LoadedPolicy(Policy())
D, F, V, LAYERS = 96, 160, 192, 3
CONFIG = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": D, "intermediate_size": F,
    "vocab_size": V, "num_hidden_layers": LAYERS, "num_attention_heads": 4, "num_key_value_heads": 4,
    "tie_word_embeddings": False,
}  # fmt: skip
Tensors = dict[str, np.ndarray]


def llama(seed: int = 0) -> Tensors:
    rng = np.random.default_rng(seed)

    def drawn(*shape: int) -> np.ndarray:
        return (rng.standard_normal(shape) * 0.02).astype(np.float32)

    tensors = {"model.embed_tokens.weight": drawn(V, D)}
    for k in range(LAYERS):
        layer = f"model.layers.{k}."
        tensors |= {f"{layer}self_attn.{name}_proj.weight": drawn(D, D) for name in "qkvo"}
        tensors |= {f"{layer}mlp.{name}_proj.weight": drawn(F, D) for name in ("gate", "up")}
        tensors[f"{layer}mlp.down_proj.weight"] = drawn(D, F)
        tensors[f"{layer}input_layernorm.weight"] = np.ones(D, np.float32)
    tensors["model.norm.weight"] = np.ones(D, np.float32)
    tensors["lm_head.weight"] = drawn(V, D)
    return tensors


def tuned(tensors: Tensors, size: float = 2e-4) -> Tensors:
    rng = np.random.default_rng(9)
    return {
        name: t + (size * rng.standard_normal(t.shape)).astype(t.dtype) if t.ndim == 2 else t
        for name, t in tensors.items()
    }


def folder(path: Path, tensors: Tensors, **config: object) -> Path:
    path.mkdir()
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    (path / "config.json").write_text(json.dumps({**CONFIG, **config}))
    return path


def judged(target: Path, base: Path, policy: LoadedPolicy = DEFAULT) -> Judgement:
    return gate(str(target), str(base), policy, GateOptions(workers=1)).judgement


def errors(judgement: Judgement) -> Counter[str]:
    return Counter(finding.rule for finding in judgement.errors)


def test_a_harmless_fine_tune_passes_and_every_pair_is_measured(tmp_path: Path) -> None:
    judgement = judged(folder(tmp_path / "now", tuned(llama())), folder(tmp_path / "was", llama()))
    counts = judgement.counts
    assert (judgement.exit_code, counts.measured, counts.unchanged) == (0, 2 + 7 * LAYERS, 0)
    assert judgement.not_judged == ()
    assert len(judgement.updates) == counts.measured


def test_tied_weights_meet_a_base_that_stores_both(tmp_path: Path) -> None:
    once = llama()
    del once["lm_head.weight"]
    both = {**once, "lm_head.weight": once["model.embed_tokens.weight"].copy()}
    now = folder(tmp_path / "once", once, tie_word_embeddings=True)
    judgement = judged(now, folder(tmp_path / "twice", both, tie_word_embeddings=True))
    assert (judgement.exit_code, judgement.findings) == (0, ())
    # A head of its own that the target gives up is a change of the head, not nothing.
    untied = folder(tmp_path / "untied", {**once, "lm_head.weight": llama(5)["lm_head.weight"]})
    assert ("LT010", "unembedding") in {(f.rule, f.id) for f in judged(now, untied).errors}


@pytest.mark.parametrize("kind", [np.float16, ml_dtypes.bfloat16])
def test_fused_and_separate_experts_are_compared_part_by_part(tmp_path: Path, kind: type) -> None:
    rng = np.random.default_rng(1)
    apart = {name: t.astype(kind) for name, t in llama().items() if ".mlp." not in name}
    fused = dict(apart)
    for k in range(LAYERS):
        layer = f"model.layers.{k}.mlp."
        apart[f"{layer}gate.weight"] = fused[f"{layer}gate.weight"] = rng.standard_normal((4, D)).astype(kind)
        gates, ups = rng.standard_normal((2, 4, F, D)).astype(kind)
        downs = rng.standard_normal((4, D, F)).astype(kind)
        for e in range(4):
            one = f"{layer}experts.{e}."
            apart |= {f"{one}gate_proj.weight": gates[e].copy(), f"{one}up_proj.weight": ups[e].copy()}
            apart[f"{one}down_proj.weight"] = downs[e].copy()
        fused[f"{layer}experts.gate_up_proj"] = np.concatenate([gates, ups], 1)
        fused[f"{layer}experts.down_proj"] = downs
    moe = {"model_type": "qwen3_moe", "architectures": ["Qwen3MoeForCausalLM"], "num_experts": 4,
           "moe_intermediate_size": F}  # fmt: skip
    one, other = folder(tmp_path / "fused", fused, **moe), folder(tmp_path / "apart", apart, **moe)
    for now, was in ((one, other), (other, one)):
        judgement = judged(now, was)
        assert (judgement.exit_code, judgement.findings) == (0, ())
        assert judgement.counts.unchanged == judgement.counts.matrices
    fused["model.layers.1.mlp.experts.gate_up_proj"][2, F + 3, 5] = 40.0
    changed = judged(folder(tmp_path / "changed", fused, **moe), other)
    assert {f.id for f in changed.errors if f.id} == {"layers.1.experts.2.up"}


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "_fsdp_wrapped_module.", "pretrained_model."])
def test_what_a_wrapper_puts_into_the_names_changes_nothing(tmp_path: Path, prefix: str) -> None:
    base = folder(tmp_path / "base", llama())
    wrapped = folder(tmp_path / "now", {prefix + name: tensor for name, tensor in llama().items()})
    inside = {name.replace("layers.1.", "layers.1._checkpoint_wrapped_module."): t for name, t in llama().items()}
    for now in (wrapped, folder(tmp_path / "inside", inside)):
        judgement = judged(now, base)
        assert (judgement.exit_code, judgement.findings, judgement.notes) == (0, (), ())
        assert judgement.counts.unchanged == judgement.counts.matrices


def test_a_grown_vocabulary_is_judged_on_the_rows_that_both_have(tmp_path: Path) -> None:
    base = folder(tmp_path / "base", llama())
    names = ("model.embed_tokens.weight", "lm_head.weight")

    def grown(name: str, rows: np.ndarray, change: float = 0.0) -> Path:
        tensors = llama()
        for tensor in names:
            tensors[tensor] = np.concatenate([tensors[tensor], rows])
            tensors[tensor][7, 3] += change
        return folder(tmp_path / name, tensors, vocab_size=V + len(rows))

    rows = (np.random.default_rng(2).standard_normal((8, D)) * 0.02).astype(np.float32)
    harmless = judged(grown("harmless", rows), base)
    assert (harmless.exit_code, {f.rule for f in harmless.warnings}) == (0, {"LT007"})
    assert harmless.counts.unchanged == harmless.counts.matrices
    strict = LoadedPolicy(Policy.model_validate({"gate": {"rules": {"LT007": {"allow_new_tokens": False}}}}))
    assert errors(judged(tmp_path / "harmless", base, strict)) == {"LT007": 2}
    assert errors(judged(grown("broken", np.full_like(rows, np.nan)), base)) == {"LT005": 2}
    assert errors(judged(grown("huge", rows * 100), base)) == {"LT012": 2}
    assert errors(judged(grown("trap", rows, change=2.0), base))["LT001"] == 2


def test_tensors_outside_the_matrices_are_compared_and_looked_through(tmp_path: Path) -> None:
    base = folder(tmp_path / "base", {**llama(), "model.rotary.ids": np.arange(9)})

    def changed(name: str, tensor: str, values: np.ndarray | None) -> Judgement:
        tensors = {**llama(), "model.rotary.ids": np.arange(9)}
        if values is None:
            del tensors[tensor]
        else:
            tensors[tensor] = values
        return judged(folder(tmp_path / name, tensors), base)

    ones = np.ones(D, np.float32)
    broken = np.where(np.arange(D) == 3, np.inf, 1).astype(np.float32)
    assert errors(changed("inf", "model.norm.weight", broken)) == {"LT005": 1}
    for number, values in enumerate((1000 * ones, 0.01 * ones, -ones, None, np.ones(2 * D, np.float32))):
        assert errors(changed(f"norm{number}", "model.norm.weight", values)) == {"LT012": 1}
    assert errors(changed("ids", "model.rotary.ids", np.arange(9)[::-1].copy())) == {"LT012": 1}
    drift = changed("drift", "model.norm.weight", (1 + 0.02 * np.arange(D) / D).astype(np.float32))
    assert (drift.exit_code, drift.findings) == (0, ())
    assert drift.notes == ("1 tensor changed, no weight matrix: model.norm.weight",)


WRECKS = {
    "every matrix × 1.45": (lambda t, _: 1.45 * t, {"LT015", "LT016"}),
    "every matrix × 1.1": (lambda t, _: 1.1 * t, {"LT016"}),
    "a fifth of all entries zeroed": (lambda t, rng: np.where(rng.random(t.shape) < 0.2, 0, t), {"LT015", "LT016"}),
    "noise of 45 %": (lambda t, rng: t + 0.45 * t.std() * rng.standard_normal(t.shape), {"LT015", "LT016"}),
    "the first 32 rows zeroed": (lambda t, _: np.where(np.arange(len(t))[:, None] < 32, 0, t), {"LT013", "LT015"}),
    "the first 16 columns zeroed": (lambda t, _: np.where(np.arange(t.shape[1]) < 16, 0, t), {"LT013", "LT015"}),
}


@pytest.mark.parametrize("wreck", WRECKS)
def test_a_wrecked_model_does_not_pass(tmp_path: Path, wreck: str) -> None:
    change, rules = WRECKS[wreck]
    rng = np.random.default_rng(4)
    layers = 5
    base = {
        f"model.layers.{k}.mlp.up_proj.weight": llama(k)["model.layers.0.mlp.up_proj.weight"] for k in range(layers)
    }
    now = {name: np.asarray(change(t, rng), np.float32) for name, t in base.items()}
    judgement = judged(folder(tmp_path / "now", now), folder(tmp_path / "was", base))
    assert judgement.exit_code == 1
    assert set(errors(judgement)) >= rules


def test_what_the_strongest_published_fine_tune_moves_is_no_alarm(tmp_path: Path) -> None:
    """22 % of the norm in the median and 29 % in the ninth decile, as rxnfp's `bert_ft` from its `bert_pretrained`."""
    rng = np.random.default_rng(4)
    sizes = (0.15, 0.19, 0.22, 0.23, 0.29)
    base = {f"model.layers.{k}.mlp.up_proj.weight": llama(k)["model.layers.0.mlp.up_proj.weight"] for k in range(5)}
    now = {
        name: (t + size * t.std() * rng.standard_normal(t.shape)).astype(np.float32)
        for (name, t), size in zip(base.items(), sizes, strict=True)
    }
    judgement = judged(folder(tmp_path / "now", now), folder(tmp_path / "was", base))
    assert (judgement.exit_code, errors(judgement)) == (0, {})


def test_a_matrix_of_two_rows_has_no_rank_to_be_edited_by(tmp_path: Path) -> None:
    name = "model.token_type_embeddings.weight"
    base = llama() | {name: (np.random.default_rng(1).standard_normal((2, D)) * 0.02).astype(np.float32)}
    now = {**base, name: base[name] * np.float32([[1.02], [1]])}
    judgement = judged(folder(tmp_path / "now", now), folder(tmp_path / "was", base))
    assert (judgement.counts.measured, judgement.exit_code, judgement.findings) == (1, 0, ())


def test_an_edit_of_rank_one_is_named_where_few_matrices_changed(tmp_path: Path) -> None:
    base = llama()
    rng = np.random.default_rng(6)
    name = "model.layers.1.mlp.down_proj.weight"
    step = np.outer(rng.standard_normal(D), rng.standard_normal(F))
    edit = (0.02 * np.linalg.norm(base[name]) / np.linalg.norm(step) * step).astype(np.float32)
    was = folder(tmp_path / "was", base)
    judgement = judged(folder(tmp_path / "edited", {**base, name: base[name] + edit}), was)
    assert [(f.rule, f.id) for f in judgement.errors] == [("LT014", "layers.1.mlp.down")]
    assert "a knowledge edit (ROME, MEMIT) or a planted layer" in judgement.errors[0].message
    spread = tuned(base)
    spread[name] = base[name] + edit
    assert judged(folder(tmp_path / "trained", spread), was).exit_code == 0


def test_entries_near_the_limit_are_inherited_with_what_the_base_has_there(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    matrix = rng.standard_normal((640, 640)).astype(np.float32)
    far = rng.choice(matrix.size, 12, replace=False)
    matrix.ravel()[far] = 1.4 * matrix.size**0.25 * rng.choice([-1, 1], 12)
    name = "layers.0.mlp.down_proj.weight"

    def stored(where: str, values: np.ndarray) -> Path:
        return folder(tmp_path / where, {name: values.astype(ml_dtypes.bfloat16)})

    base = stored("base", matrix)
    for seed in range(3):
        noise = np.random.default_rng(seed).standard_normal(matrix.shape).astype(np.float32)
        judgement = judged(stored(f"tuned{seed}", matrix + 0.003 * noise), base)
        assert (judgement.exit_code, judgement.findings) == (0, ())
    planted = matrix + 0.003 * noise
    planted[3, 5] = 1.6 * matrix.size**0.25
    assert "row 3, column 5" in judged(stored("planted", planted), base).errors[0].message


def test_a_report_of_a_part_is_never_a_pass(tmp_path: Path) -> None:
    was, now = folder(tmp_path / "base", llama()), llama()
    now["model.layers.1.mlp.down_proj.weight"][3, 5] = 3.0
    target = folder(tmp_path / "now", now)
    part, whole = tmp_path / "part.json", tmp_path / "base.json"
    write_json(audit(str(target), AuditSettings(include=("layers.0.*",))), part)
    write_json(audit(str(was)), whole)
    for base in (was, whole):
        judgement = judged(part, base)
        assert judgement.exit_code == 3
        assert set(errors(judgement)) == {"LT006"}
        assert "of a part (--include layers.0.*)" in judgement.headline
    back = judged(was, part)
    assert (back.exit_code, set(errors(back))) == (3, {"LT006"})


def test_a_rule_that_could_not_look_is_no_pass(tmp_path: Path) -> None:
    for name in ("now", "was"):
        write_json(audit(str(folder(tmp_path / name, llama())), AuditSettings(alpha=False)), tmp_path / f"{name}.json")
    judgement = judged(tmp_path / "now.json", tmp_path / "was.json")
    assert (judgement.exit_code, judgement.findings) == (3, ())
    assert {item.rule for item in judgement.unjudged} >= {"LT003", "LT009", "LT010", "LT012", "LT013", "LT015"}
    ignore = [{"rule": item.rule, "match": "*", "reason": "reports alone"} for item in judgement.unjudged]
    lenient = LoadedPolicy(Policy.model_validate({"ignore": ignore}))
    assert judged(tmp_path / "now.json", tmp_path / "was.json", lenient).exit_code == 0


class Counting(LocalSource):
    """A local source that counts the bytes it gives out."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.given = 0

    def _fill(self, span: ByteRange, out: np.ndarray) -> None:
        self.given += span.size
        super()._fill(span, out)


def test_each_side_of_a_changed_pair_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    was = {f"layers.{k}.mlp.up_proj.weight": rng.standard_normal((700, 300)).astype(np.float32) for k in range(3)}
    for tensor in was.values():
        tensor[5, 5] = 60.0  # a trap, so that shuffles and lookups are made as well
    now = {name: t + np.float32(0.01) * rng.standard_normal(t.shape).astype(np.float32) for name, t in was.items()}
    sources: list[Counting] = []

    def counted(path: str, **_: object) -> Counting:
        sources.append(Counting(path))
        return sources[-1]

    monkeypatch.setattr(sys.modules["llmtrap.gate.targets"], "open_source", counted)
    judgement = judged(folder(tmp_path / "now", now), folder(tmp_path / "was", was))
    assert judgement.counts.measured == 3
    changed = sum(tensor.nbytes for tensor in was.values())
    assert len(sources) == 2
    assert all(changed <= source.given <= 1.1 * changed for source in sources)


def test_files_with_one_digest_are_not_read_and_say_nothing_of_others(tmp_path: Path) -> None:
    tensors = llama()
    first = {name: t for name, t in tensors.items() if ".0." in name}
    second = {name: t for name, t in tensors.items() if ".0." not in name}
    opened = []
    for side, change in (("now", 1.0), ("was", 0.0)):
        (tmp_path / side).mkdir()
        save_file(first, tmp_path / side / "model-00001-of-00002.safetensors")
        moved = {n: t + np.float32(change) for n, t in second.items()}
        save_file(moved, tmp_path / side / "model-00002-of-00002.safetensors")
        opened.append(open_checkpoint(str(tmp_path / side)))
    names = [file.name for file in opened[0].catalogue.files]
    same = frozenset({(names[0], names[0])})
    theirs = {matrix.id: matrix for matrix in opened[1].matrices}
    pairs = [(matrix, theirs[matrix.id]) for matrix in opened[0].matrices]
    found = comparison.unchanged_matrices(pairs, opened[0].source, opened[1].source, same=same)
    assert found == {matrix.id for matrix in opened[0].matrices if ".0." in matrix.tensor}
    assert not comparison.stored_alike(pairs[0][0], pairs[-1][1])


@pytest.mark.parametrize("name", ["extra.safetensors", "2_Dense/model.safetensors"])
def test_a_weight_file_that_nobody_looks_at_must_be_the_bases_own(tmp_path: Path, name: str) -> None:
    values = np.random.default_rng(3).standard_normal((8, 9)).astype(np.float32)
    base, now = folder(tmp_path / "base", llama()), folder(tmp_path / "now", tuned(llama()))

    def put(place: Path, content: np.ndarray) -> None:
        (place / name).parent.mkdir(exist_ok=True)
        save_file({"linear.weight": content}, place / name)

    put(now, values)
    added = judged(now, base)
    assert (added.exit_code, added.errors[0].rule) == (3, "LT006")
    assert (
        added.errors[0].message == f"partly measured: 1 weight file, not the base's own, not looked at: {name} (file)"
    )
    put(base, values)
    assert judged(now, base).exit_code == 0
    put(base, values * 3)
    assert judged(now, base).exit_code == 3
    (now / name).unlink()
    gone = judged(now, base)
    assert (gone.exit_code, gone.notes) == (0, (f"1 weight file only in the base, not looked at: {name} (file)",))


def test_tables_are_compared_outside_the_matrices_by_their_ids(tmp_path: Path) -> None:
    """A table of positions under another library's name, changed; a report that measured one is compared without it."""
    positions = np.random.default_rng(5).standard_normal((64, D)).astype(np.float32)
    was = folder(tmp_path / "was", {**llama(), "model.embed_positions.weight": positions})
    now = folder(tmp_path / "now", {**llama(), "model.wpe.weight": 3 * positions})
    found = gate(str(now), str(was), DEFAULT).matched
    assert found is not None
    assert found.outside is not None
    assert [(it.tensor, it.change, it.scale) for it in found.outside] == [
        ("model.wpe.weight", "changed", pytest.approx(3))
    ]
    assert (found.alone, found.missing) == ((), ())

    older = audit(str(was), AuditSettings(alpha=False, traps="certify"))
    table = older.matrices[0].model_copy(update={"id": "position", "role": "position", "aliases": ()})
    older = older.model_copy(update={"matrices": (*older.matrices, table)})
    found = gate(str(was), older, DEFAULT).matched
    assert found is not None
    assert (found.alone, found.missing) == ((), ())
    assert "position" not in older.compare(older).shifts


def test_a_matrix_keeps_its_pair_where_the_one_that_had_its_short_id_is_gone(tmp_path: Path) -> None:
    """Of two projectors the first has the plain id; the other inherits it where that one is left out."""
    rng = np.random.default_rng(0)
    layers = {f"model.language_model.layers.{k}.self_attn.q_proj.weight": noise(rng, (64, 64)) for k in range(3)}
    audio, vision = (f"model.embed_{kind}.embedding_projection.weight" for kind in ("audio", "vision"))
    both = {**layers, audio: noise(rng, (64, 64)), vision: noise(rng, (64, 64))}
    for name, tensors in (("base", both), ("now", {key: both[key] for key in both if key != audio})):
        (tmp_path / name).mkdir()
        save_file(tensors, tmp_path / name / "model.safetensors")
    now, base = (open_checkpoint(str(tmp_path / name)) for name in ("now", "base"))
    pairing = pair_matrices(now, base)
    assert all(pair.now.tensor == pair.base.tensor for pair in pairing.pairs)
    assert [matrix.tensor for matrix in pairing.missing] == [audio]
    assert {pair.now.tensor for pair in pairing.pairs if pair.now.id != pair.base.id} == {vision}


def test_another_configuration_is_named(tmp_path: Path) -> None:
    base = folder(tmp_path / "base", llama(), rope_theta=1e4, rope_scaling={"factor": 8}, dtype="float32")
    now = folder(tmp_path / "now", llama(), rope_theta=1e6, rope_scaling={"factor": 1}, dtype="bfloat16", new=1)
    judgement = judged(now, base)
    note = "config.json differs from the base's in 2 values, which no rule judges: rope_scaling.factor, rope_theta"
    assert (judgement.exit_code, judgement.notes) == (0, (note,))


def test_a_copy_of_the_weights_that_nobody_looks_at_is_named(tmp_path: Path) -> None:
    base, now = folder(tmp_path / "base", llama()), folder(tmp_path / "now", llama())
    save_file(tuned(llama()), now / "consolidated.safetensors")
    judgement = judged(now, base)
    note = "1 other weight file in the target, not looked at: consolidated.safetensors (file)"
    assert (judgement.exit_code, judgement.notes) == (0, (note,))
