"""Names as published checkpoints have them, and what the grammar makes of each: part, layer, role, expert and id."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from llmtrap.checkpoint.naming import Module, load_grammar, name_places
from llmtrap.checkpoint.naming.places import MOST_KINDS

LINE = re.compile(r"(?P<name>[^:! ]+)(?::(?P<dimensions>\d))?(?P<row>!1)? (?P<place>.+)")
WRAPPERS = ("module.", "_orig_mod.", "_fsdp_wrapped_module.", "base_model.model.", "module._orig_mod.")


def read(path: Path) -> dict[str, list[tuple[Module, str]]]:
    """The modules of each checkpoint and their places, as the file has them."""
    checkpoints: dict[str, list[tuple[Module, str]]] = {}
    for line in path.read_text("utf-8").splitlines():
        if line.startswith("["):
            checkpoints[line.strip("[]")] = []
        elif line and not line.startswith("#"):
            found = LINE.fullmatch(line)
            assert found is not None, line
            shape = (1 if found["row"] else 8, *[8] * (int(found["dimensions"] or 2) - 1))
            checkpoints[list(checkpoints)[-1]].append((Module(found["name"], shape), found["place"]))
    return checkpoints


PUBLISHED = read(Path(__file__).with_name("published.txt"))


def places(modules: list[Module]) -> list[str]:
    found = name_places(modules, load_grammar(), {})
    parts = (("-" if part is None else str(part) for part in (p.id, p.part, p.layer, p.role, p.expert)) for p in found)
    return [" ".join(words) for words in parts]


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_matrix_of_a_published_checkpoint_has_its_place(name: str) -> None:
    modules, expected = zip(*PUBLISHED[name], strict=True)
    assert places(list(modules)) == list(expected)
    assert len({place.split()[0] for place in expected}) == len(expected)


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_a_wrapper_changes_no_place(wrapper: str) -> None:
    for modules in PUBLISHED.values():
        wrapped = [Module(wrapper + module.name, module.shape) for module, _ in modules]
        if not any(
            module.name.startswith(("v.", "mm.", "enc.")) for module, _ in modules
        ):  # GGUF's names have no wrappers
            assert places(wrapped) == [place for _, place in modules]


def test_a_layer_number_means_one_layer_of_one_tower() -> None:
    """What stands before `layers` in an id tells apart whatever would share a layer's number."""
    names = {
        "model.sam_model.blocks.3.attn.qkv": "vision.sam_model.layers.3.attention.qkv",
        "model.vision_model.transformer.layers.3.mlp.fc1": "vision.vision_model.layers.3.mlp.up",
        "model.layers.3.self_attn.q_proj": "layers.3.attention.q",
    }
    found = name_places([Module(name, (8, 8)) for name in names], load_grammar(), {})
    assert [place.id for place in found] == list(names.values())
    assert [(place.part, place.layer) for place in found] == [("vision", 3), ("vision", 3), ("text", 3)]


def test_stages_and_their_blocks_are_counted_through() -> None:
    names = [f"swin.encoder.layers.{s}.blocks.{b}.attention.self.query" for s in range(3) for b in range(2)]
    found = name_places([Module(name, (8, 8)) for name in names], load_grammar(), {})
    assert [place.layer for place in found] == list(range(6))


def test_names_that_nobody_foresaw_still_have_layers() -> None:
    names = [f"flux.units.{k}.{word}" for k in range(4) for word in ("capacitor.widget", "capacitor.gadget")]
    found = name_places([Module(name, (8, 8)) for name in (*names, "flux.single.7.widget")], load_grammar(), {})
    assert [place.layer for place in found] == [0, 0, 1, 1, 2, 2, 3, 3, None]
    assert not any(place.known for place in found)
    assert len({place.id for place in found}) == 9


@pytest.mark.parametrize("word", ["vison_tower", "visoin_tower", "visionn_tower", "vosion_tower", "audoi_tower"])
def test_a_part_one_letter_off_is_that_part(word: str) -> None:
    (place,) = name_places([Module(f"model.{word}.layers.0.self_attn.q_proj", (8, 8))], load_grammar(), {})
    assert place.part == ("audio" if word.startswith("aud") else "vision")


def test_more_kinds_of_names_than_any_model_has_are_left_as_they_are() -> None:
    names = [f"a{k}.layers.0.mlp.up_proj" for k in range(MOST_KINDS + 1)]
    found = name_places([Module(name, (8, 8)) for name in names], load_grammar(), {})
    assert [place.id for place in found] == names
    assert not any(place.known for place in found)
    assert name_places([Module(names[0], (8, 8))], load_grammar(), {})[0].id == "layers.0.mlp.up"
