"""Run a causal language model, or an encoder, one layer at a time, with several variants of its weights in one pass.

The model is built from config.json on the meta device: no weight is allocated and no code of the repository runs. Its
own forward pass calls each layer through `LayerGate`, which reads the layer's weights, runs the model as it is and
every variant that has begun, and lets the weights go again. So at any time one layer is in memory, and the hidden
states of each variant. Stacks of experts are read one expert at a time, and large embeddings by the rows that the
tokens need.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from llmtrap.ablation import stand_ins
from llmtrap.ablation.building import build_model, layer_list
from llmtrap.ablation.layer_gate import LayerGate, PassState, Variant
from llmtrap.ablation.observing import Observer
from llmtrap.ablation.outcome import Outcome
from llmtrap.ablation.parameters import ParameterGroup, ParameterTable, parameter_table
from llmtrap.ablation.stand_ins import (
    ExpertStack,
    StreamedEmbedding,
    StreamedLinear,
    is_stack,
    put,
    replace_module,
    stand_in,
    value_of,
)
from llmtrap.ablation.stored_values import Change, Place
from llmtrap.checkpoint import Checkpoint
from llmtrap.systems.process import return_freed_memory


class StreamedModel:
    """A checkpoint as a `transformers` model whose layers are read when they are run.

        model = StreamedModel(open_checkpoint("path"))
        with model.run(token_ids, [variant]) as outcome:
            logits = outcome.logits(None), outcome.logits("variant")

    Args:
        checkpoint: opened; its config.json says what the model is.
        device: where the layers run.

    Raises:
        MissingExtraError: transformers is not installed.
        UnsupportedError: no such model is known, or it is not one of decoder or encoder layers in a row.
    """

    def __init__(self, checkpoint: Checkpoint, device: str = "cpu"):
        self.device = torch.device(device)
        self.config, self.causal, self.model = build_model(checkpoint)
        self.table: ParameterTable = parameter_table(checkpoint, self.model)
        owner, attribute, layers = layer_list(self.model)
        self.layer_prefix = owner[1] + attribute
        self.gates = [LayerGate(self, k, layer) for k, layer in enumerate(layers)]
        self.state = PassState()
        self.tuples = False
        setattr(owner[0], attribute, nn.ModuleList(self.gates))
        self._replaced: Mapping[Place, Change] = {}
        self._load_outside()
        self.model.eval()

    @property
    def width(self) -> int:
        """Width of the embeddings, which the hidden states have too."""
        return self._embedding_shape()[1]

    @property
    def vocabulary(self) -> int:
        """How many tokens there are."""
        return int(getattr(self.config, "vocab_size", 0)) or self._embedding_shape()[0]

    def _embedding_shape(self) -> tuple[int, int]:
        embedding = self.model.get_input_embeddings()
        if isinstance(embedding, StreamedEmbedding):
            ((_, _, stored),) = embedding.group.sources
            return int(stored.rows), int(stored.columns)
        rows, columns = embedding.weight.shape
        return int(rows), int(columns)

    def transposed(self, parameter: str) -> bool:
        """Whether a parameter's rows are input channels (GPT-2's Conv1D)."""
        module = self.model.get_submodule(self._inside_gates(parameter.rpartition(".")[0]))
        return type(module).__name__ == "Conv1D"

    def _inside_gates(self, name: str) -> str:
        """A module's name where the layers stand within their gates."""
        if not name.startswith(self.layer_prefix + "."):
            return name
        number, _, rest = name[len(self.layer_prefix) + 1 :].partition(".")
        return f"{self.layer_prefix}.{number}.layer.{rest}"

    # -- weights ------------------------------------------------------------------------------------------------

    def layer_of(self, tensor: str) -> int | None:
        """The layer that a stored tensor belongs to; None for one outside the layers."""
        for name in self.table.parameters_of(tensor):
            if name.startswith(self.layer_prefix + "."):
                return int(name[len(self.layer_prefix) + 1 :].split(".", 1)[0])
        return None

    def used(self, tensor: str) -> bool:
        """Whether a stored tensor is part of the model."""
        return bool(self.table.parameters_of(tensor))

    def load_layer(self, number: int) -> None:
        """Read the weights of a layer; stacks of experts are left to be read one at a time."""
        prefix = f"{self.layer_prefix}.{number}."
        layer = self.gates[number].layer
        done: set[str] = set()
        for name, group in self.table.groups.items():
            if not name.startswith(prefix) or group.target in done:
                continue
            done.add(group.target)
            if is_stack(layer, name[len(prefix) :]):
                put(layer, name[len(prefix) :], self._stack(group, self._replaced))
                continue
            for made, tensor in self.table.make(group, self.model, self._replaced).items():
                put(layer, made[len(prefix) :], tensor.to(self.device))

    def load_leaves(self, number: int) -> dict[str, Tensor]:
        """Read the weights of a layer, experts included, as leaves of autograd: its matrices and stacks by name."""
        prefix = f"{self.layer_prefix}.{number}."
        leaves: dict[str, Tensor] = {}
        groups = {group.target: group for name, group in self.table.groups.items() if name.startswith(prefix)}
        for group in groups.values():
            for name, tensor in self.table.make(group, self.model).items():
                leaf = nn.Parameter(
                    tensor.to(self.device), requires_grad=tensor.dim() > 1 and not name.endswith("bias")
                )
                put(self.gates[number].layer, name[len(prefix) :], leaf)
                if leaf.requires_grad:
                    leaves[name] = leaf
        return leaves

    def _stack(self, group: ParameterGroup, changes: Mapping[Place, Change]) -> ExpertStack:
        def read(expert: int) -> Tensor:
            return self.table.expert(group, self.model, expert, changes).to(self.device)

        return ExpertStack(read, tuple(value_of(self.model, self._inside_gates(group.target)).shape))

    def free_layer(self, number: int) -> None:
        """Let the weights of a layer go."""
        for module in self.gates[number].layer.modules():
            for name, parameter in list(module._parameters.items()):
                if parameter is not None:
                    module._parameters[name] = nn.Parameter(
                        torch.empty(parameter.shape, device="meta"), requires_grad=False
                    )
            for name in [key for key, value in vars(module).items() if isinstance(value, ExpertStack)]:
                stack = vars(module)[name]
                delattr(module, name)
                module.register_parameter(
                    name, nn.Parameter(torch.empty(stack.shape, device="meta"), requires_grad=False)
                )
        return_freed_memory()

    @contextmanager
    def changed(self, number: int, changes: Mapping[Place, Change]) -> Iterator[None]:
        """The weights of a loaded layer with these stored matrices changed, until the block ends."""
        prefix = f"{self.layer_prefix}.{number}."
        layer = self.gates[number].layer
        names = {name for place in changes for name in self.table.parameters_of(place.tensor)}
        groups = {self.table.groups[n].target: self.table.groups[n] for n in names if n.startswith(prefix)}
        before: dict[str, Any] = {}
        try:
            for target, group in groups.items():
                if is_stack(layer, target[len(prefix) :]):
                    made: dict[str, Any] = {target: self._stack(group, changes)}
                else:
                    made = {k: v.to(self.device) for k, v in self.table.make(group, self.model, changes).items()}
                for name, value in made.items():
                    before[name] = value_of(layer, name[len(prefix) :])
                    put(layer, name[len(prefix) :], value)
            yield
        finally:
            for name, value in before.items():
                put(layer, name[len(prefix) :], value)

    def _load_outside(self) -> None:
        """Embeddings, the last norm and the head, once; large matrices are read as they are needed."""
        done: set[str] = set()
        for name, group in self.table.groups.items():
            if name.startswith(self.layer_prefix + ".") or group.target in done:
                continue
            done.add(group.target)
            parent, _, leaf = name.rpartition(".")
            module = self.model.get_submodule(parent)
            if isinstance(module, nn.Embedding | nn.Linear) and leaf == "weight":
                large = module.weight
                if large.numel() > stand_ins.HELD_PARAMETERS and group.as_stored:
                    replace_module(self.model, parent, stand_in(self.table, module, group))
                    continue
            for made, tensor in self.table.make(group, self.model).items():
                put(self.model, made, tensor.to(self.device))
        self._tie()

    def _tie(self) -> None:
        """Give a tied head the embedding's weights; where those are read row by row, the head reads them too."""
        embedding, head = self.model.get_input_embeddings(), self.model.get_output_embeddings()
        if not isinstance(embedding, StreamedEmbedding):
            self.model.tie_weights()
        elif isinstance(head, nn.Linear) and head.weight.is_meta:
            name = next(name for name, module in self.model.named_modules() if module is head)
            replace_module(self.model, name, StreamedLinear(self.table, embedding.group, head.bias))

    # -- running ------------------------------------------------------------------------------------------------

    @contextmanager
    def run(
        self,
        tokens: Tensor,
        variants: Sequence[Variant] = (),
        observer: Observer | None = None,
        *,
        for_gradients: bool = False,
    ) -> Iterator[Outcome]:
        """One pass over all layers.

        Args:
            tokens: token ids, [sequences, length].
            variants: run beside the model as it is; each must begin within a layer.
            observer: told what goes through the modules of the model as it is.
            for_gradients: keep what each layer was given, as tensors that autograd takes.

        Raises:
            ValueError: a variant begins in no layer.
        """
        if any(variant.layer is None for variant in variants):
            raise ValueError("a variant of weights outside the layers takes a pass of its own: with_outside")
        ordered = sorted(variants, key=lambda variant: variant.layer or 0)
        self.state = PassState(tuple(ordered), observer=observer, keeps=for_gradients)
        try:
            with torch.no_grad() if for_gradients else torch.inference_mode():
                tokens = tokens.to(self.device)
                self.model(input_ids=tokens[:, :], use_cache=False, **self._head_off())
                yield Outcome(self, tokens, self.state)
        finally:
            self.state = PassState()

    def _head_off(self) -> dict[str, Any]:
        """Keep the pass over the layers from making logits that nobody asked for."""
        takes = self.causal and "logits_to_keep" in signature(self.model.forward).parameters
        return {"logits_to_keep": 1} if takes else {}

    @contextmanager
    def replaced(self, changes: Mapping[Place, Change]) -> Iterator[None]:
        """The model with these stored matrices changed wherever they are, until the block ends."""
        outside = {place: change for place, change in changes.items() if self.layer_of(place.tensor) is None}
        self._replaced = {place: change for place, change in changes.items() if place not in outside}
        try:
            with self.with_outside(outside):
                yield
        finally:
            self._replaced = {}

    @contextmanager
    def with_outside(self, changes: Mapping[Place, Change]) -> Iterator[None]:
        """The model with weights outside its layers changed, until the block ends."""
        before: dict[str, Any] = {}
        names = {name for place in changes for name in self.table.parameters_of(place.tensor)}
        try:
            for target in {self.table.groups[name].target for name in names}:
                for made, tensor in self.table.make(self.table.groups[target], self.model, changes).items():
                    before[made] = value_of(self.model, made)
                    put(self.model, made, tensor.to(self.device))
            self._tie()
            yield
        finally:
            for name, value in before.items():
                put(self.model, name, value)
            self._tie()
