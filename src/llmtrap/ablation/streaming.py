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
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from llmtrap.ablation.parameters import Change, ParameterGroup, ParameterTable, Place, parameter_table
from llmtrap.checkpoint import Checkpoint
from llmtrap.checkpoint.names import printable
from llmtrap.errors import MissingExtraError, UnsupportedError

HELD_PARAMETERS = 1 << 26
"""Embeddings of more entries than this (256 MiB of float32) are not held, but read row by row as they are needed."""

_TOKENS_AT_ONCE = 4096  # of variants that run through a layer together
_LAYER_LISTS = ("layers", "layer", "h", "blocks", "block")


@dataclass(frozen=True)
class Variant:
    """The model with some stored matrices changed. `layer` is the first decoder layer that sees a changed weight.

    None as the layer stands for weights outside the layers: such a variant takes a pass of its own.
    """

    name: str
    changes: Mapping[Place, Change]
    layer: int | None


class Observer(Protocol):
    """Told of the inputs and outputs of modules while the model runs as it is."""

    def linear(self, parameter: str, inputs: Tensor, outputs: Tensor) -> None:
        """One matrix was applied: its parameter's name, [.., in] and [.., out]."""

    def experts(self, module: str, chosen: Tensor) -> None:
        """Tokens were sent to experts: the module's name, and the experts' numbers."""


@dataclass
class _Pass:
    """What one forward pass carries through the layers."""

    variants: Sequence[Variant] = ()
    hidden: dict[str, Tensor] = field(default_factory=dict)
    base: Tensor | None = None
    observer: Observer | None = None
    replayed: Tensor | None = None


class LayerGate(nn.Module):
    """Stands in a decoder layer's place: loads it, runs it for the model and each variant, and lets it go."""

    def __init__(self, owner: StreamedModel, number: int, layer: nn.Module):
        super().__init__()
        self._owner = [owner]  # in a list, so that the model does not become a module of its own layer
        self.layer = layer
        self.number = number

    def __getattr__(self, name: str) -> Any:
        """Attributes that a model's forward pass asks its layers for (`attention_type`, …) are the layer's own."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("layer"), name)

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        """The layer's output for the model as it is; variants are carried beside it."""
        owner = self._owner[0]
        state = owner.state
        if state.replayed is not None:
            return self._answer(state.replayed if self.number == len(owner.gates) - 1 else hidden_states)
        owner.load_layer(self.number)
        try:
            running = list(state.hidden)
            # Variants that begin in this layer have changed weights in it: each runs alone.
            begun = {}
            for variant in state.variants:
                if variant.layer == self.number:
                    with owner.changed(self.number, variant.changes):
                        begun[variant.name] = _first(self.layer(hidden_states, *args, **kwargs))
            # All others share the weights of the model as it is: they run in few calls, and experts are read once.
            with owner.observing(self.number, state.observer):
                output = self.layer(hidden_states, *args, **kwargs)
            size = max(1, _TOKENS_AT_ONCE // max(1, hidden_states.shape[0] * hidden_states.shape[1]))
            for first in range(0, len(running), size):
                names = running[first : first + size]
                together = torch.cat([state.hidden[name] for name in names])
                more = [_repeated(item, hidden_states.shape[0], len(names)) for item in args]
                named = {key: _repeated(item, hidden_states.shape[0], len(names)) for key, item in kwargs.items()}
                made = _first(self.layer(together, *more, **named))
                state.hidden.update(zip(names, torch.split(made, hidden_states.shape[0]), strict=True))
            state.hidden.update(begun)
        finally:
            owner.free_layer(self.number)
        if self.number == len(owner.gates) - 1:
            state.base = _first(output)
        return output

    def _answer(self, hidden: Tensor) -> Any:
        return (hidden,) if self._owner[0].tuples else hidden


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
        self.config, self.causal, self.model = _build(checkpoint)
        self.table: ParameterTable = parameter_table(checkpoint, self.model)
        owner, attribute, layers = _layer_list(self.model)
        self.layer_prefix = owner[1] + attribute
        self.gates = [LayerGate(self, k, layer) for k, layer in enumerate(layers)]
        self.state = _Pass()
        self.tuples = False
        setattr(owner[0], attribute, nn.ModuleList(self.gates))
        self._replaced: Mapping[Place, Change] = {}
        self._load_outside()
        self.model.eval()

    @property
    def width(self) -> int:
        """Width of the embeddings, which the hidden states have too."""
        embedding = self.model.get_input_embeddings()
        if isinstance(embedding, StreamedEmbedding):
            ((_, _, stored),) = embedding.group.sources
            return int(stored.columns)
        return int(embedding.weight.shape[-1])

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
            if _is_stack(layer, name[len(prefix) :]):
                _put(layer, name[len(prefix) :], ExpertStack(self, group, self._replaced))
                continue
            for made, tensor in self.table.make(group, self.model, self._replaced).items():
                _put(layer, made[len(prefix) :], tensor.to(self.device))

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
                if _is_stack(layer, target[len(prefix) :]):
                    made: dict[str, Any] = {target: ExpertStack(self, group, changes)}
                else:
                    made = {k: v.to(self.device) for k, v in self.table.make(group, self.model, changes).items()}
                for name, value in made.items():
                    before[name] = _get(layer, name[len(prefix) :])
                    _put(layer, name[len(prefix) :], value)
            yield
        finally:
            for name, value in before.items():
                _put(layer, name[len(prefix) :], value)

    @contextmanager
    def observing(self, number: int, observer: Observer | None) -> Iterator[None]:
        """Tell an observer what goes through the modules of a layer, until the block ends."""
        if observer is None:
            yield
            return
        handles = []
        prefix = f"{self.layer_prefix}.{number}."
        for name, module in self.gates[number].layer.named_modules():
            weight = getattr(module, "weight", None)
            if isinstance(weight, Tensor) and weight.dim() == 2 and not isinstance(module, nn.Embedding):
                handles.append(module.register_forward_hook(_tell_linear(observer, f"{prefix}{name}.weight")))
            elif any(isinstance(value, ExpertStack) for value in vars(module).values()):
                handles.append(module.register_forward_pre_hook(_tell_experts(observer, prefix + name)))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

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
                if large.numel() > HELD_PARAMETERS and group.converter is None:
                    _replace(self.model, parent, _streamed(self, module, group))
                    continue
            for made, tensor in self.table.make(group, self.model).items():
                _put(self.model, made, tensor.to(self.device))
        self._tie()

    def _tie(self) -> None:
        """Give a tied head the embedding's weights; where those are read row by row, the head reads them too."""
        embedding, head = self.model.get_input_embeddings(), self.model.get_output_embeddings()
        if not isinstance(embedding, StreamedEmbedding):
            self.model.tie_weights()
        elif isinstance(head, nn.Linear) and head.weight.is_meta:
            name = next(name for name, module in self.model.named_modules() if module is head)
            _replace(self.model, name, StreamedLinear(self, embedding.group, head.bias))

    # -- running ------------------------------------------------------------------------------------------------

    @contextmanager
    def run(
        self, tokens: Tensor, variants: Sequence[Variant] = (), observer: Observer | None = None
    ) -> Iterator[Outcome]:
        """One pass over all layers.

        Args:
            tokens: token ids, [sequences, length].
            variants: run beside the model as it is; each must begin within a layer.
            observer: told what goes through the modules of the model as it is.
        """
        self.state = _Pass(tuple(variants), observer=observer)
        try:
            with torch.inference_mode():
                tokens = tokens.to(self.device)
                self.model(input_ids=tokens[:, :], use_cache=False, **self._head_off())
                yield Outcome(self, tokens, self.state)
        finally:
            self.state = _Pass()

    def _head_off(self) -> dict[str, Any]:
        """Keep the pass over the layers from making logits that nobody asked for."""
        return {"logits_to_keep": 1} if self.causal and self._takes_logits_to_keep() else {}

    def _takes_logits_to_keep(self) -> bool:
        return "logits_to_keep" in type(self.model).forward.__code__.co_varnames

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
                    before[made] = _get(self.model, made)
                    _put(self.model, made, tensor.to(self.device))
            self._tie()
            yield
        finally:
            for name, value in before.items():
                _put(self.model, name, value)
            self._tie()


@dataclass
class Outcome:
    """What a pass left: the hidden states after the last layer, of the model and of each variant."""

    owner: StreamedModel
    tokens: Tensor
    state: _Pass

    def hidden(self, variant: str | None) -> Tensor:
        """Hidden states after the last layer, [sequences, length, width]."""
        if variant is None or variant not in self.state.hidden:
            if self.state.base is None:
                raise RuntimeError("the pass did not reach the last layer")
            return self.state.base
        return self.state.hidden[variant]

    def logits(self, variant: str | None, sequences: slice = slice(None)) -> Tensor:
        """Logits of some sequences, [n, length, vocabulary], by the model's own last norm and head."""
        owner, hidden = self.owner, self.hidden(variant)[sequences]
        owner.state.replayed = hidden
        try:
            output = owner.model(input_ids=self.tokens[sequences], use_cache=False)
        finally:
            owner.state.replayed = None
        logits: Tensor = output.logits if owner.causal else output.last_hidden_state
        return logits


class ExpertStack:
    """A parameter [experts, …] whose slices are read when they are asked for."""

    def __init__(self, owner: StreamedModel, group: ParameterGroup, changes: Mapping[Place, Change]):
        self._owner, self._group, self._changes = owner, group, changes
        self.shape = _meta_shape(owner.model, group.target)

    def __getitem__(self, expert: Any) -> Tensor:
        """The weights of one expert."""
        table = self._owner.table
        return table.expert(self._group, self._owner.model, int(expert), self._changes).to(self._owner.device)


class StreamedEmbedding(nn.Module):
    """An embedding whose rows are read as the tokens need them."""

    def __init__(self, owner: StreamedModel, group: ParameterGroup, scale: Tensor | float = 1.0):
        super().__init__()
        self._owner, self.group, self._scale = [owner], group, scale

    def forward(self, tokens: Tensor) -> Tensor:
        """Rows of the embedding, [sequences, length, width]."""
        owner = self._owner[0]
        distinct, places = torch.unique(tokens, return_inverse=True)
        rows = owner.table.rows(self.group, distinct.tolist()).to(owner.device)
        return rows[places] * self._scale


class StreamedLinear(nn.Module):
    """A head whose weight is read in blocks of rows."""

    def __init__(self, owner: StreamedModel, group: ParameterGroup, bias: Tensor | None):
        super().__init__()
        self._owner, self.group, self.bias = [owner], group, bias

    def forward(self, hidden: Tensor) -> Tensor:
        """Hidden Wᵀ + bias."""
        owner = self._owner[0]
        ((_, _, stored),) = self.group.sources
        output = hidden.new_empty((*hidden.shape[:-1], stored.rows))
        step = max(1, (HELD_PARAMETERS >> 2) // stored.columns)
        for start in range(0, stored.rows, step):
            stop = min(start + step, stored.rows)
            block = torch.from_numpy(stored.decode(owner.table.source, None, start, stop).copy()).to(owner.device)
            output[..., start:stop] = hidden @ block.T
        return output if self.bias is None else output + self.bias


def _streamed(owner: StreamedModel, module: nn.Module, group: ParameterGroup) -> nn.Module:
    if isinstance(module, nn.Embedding):
        return StreamedEmbedding(owner, group, getattr(module, "embed_scale", 1.0))
    return StreamedLinear(owner, group, getattr(module, "bias", None))


def _build(checkpoint: Checkpoint) -> tuple[Any, bool, Any]:
    """The model's configuration, whether it is a causal language model, and the model on the meta device."""
    try:
        import transformers  # noqa: PLC0415 - an extra
        from accelerate import init_empty_weights  # noqa: PLC0415
    except ImportError:
        raise MissingExtraError.of("ablation", "ablation") from None
    stated = dict(checkpoint.catalogue.config)
    stated.pop("quantization_config", None)
    kind = stated.pop("model_type", None)
    if not isinstance(kind, str) or kind not in transformers.CONFIG_MAPPING:
        raise UnsupportedError(
            f"config.json names the model type {printable(str(kind))!r}, which transformers does not know",
            file="config.json",
            remedy="Only models that transformers can build without the repository's own code can be ablated",
        )
    config = transformers.CONFIG_MAPPING[kind].from_dict(stated)
    if getattr(config, "is_encoder_decoder", False):
        remedy = "Ablation needs one row of layers"
        raise UnsupportedError("an encoder-decoder model", file="config.json", remedy=remedy)
    causal = type(config) in transformers.MODEL_FOR_CAUSAL_LM_MAPPING and _speaks(stated)
    factory = transformers.AutoModelForCausalLM if causal else transformers.AutoModel
    with init_empty_weights(include_buffers=False):
        model: Any = factory.from_config(  # type: ignore[no-untyped-call]
            config, dtype=torch.float32, trust_remote_code=False, experts_implementation="eager"
        )
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return config, causal, model


def _speaks(config: Mapping[str, Any]) -> bool:
    """Whether config.json names a model that predicts the next token."""
    names = config.get("architectures")
    if not isinstance(names, list) or not names:
        return True
    return any(
        isinstance(name, str) and name.endswith(("CausalLM", "LMHeadModel", "ConditionalGeneration")) for name in names
    )


def _layer_list(model: nn.Module) -> tuple[tuple[nn.Module, str], str, nn.ModuleList]:
    """The list of layers that hold most of the parameters: (its owner, the owner's prefix), its name, the list."""
    best: tuple[int, tuple[nn.Module, str], str, nn.ModuleList] | None = None
    for name, module in model.named_modules():
        parent, _, leaf = name.rpartition(".")
        if isinstance(module, nn.ModuleList) and leaf in _LAYER_LISTS:
            size = sum(parameter.numel() for parameter in module.parameters())
            if best is None or size > best[0]:
                best = (size, (model.get_submodule(parent), f"{parent}." if parent else ""), leaf, module)
    if best is None:
        problem = f"{type(model).__name__} has no list of layers"
        raise UnsupportedError(problem, file="config.json", remedy="It cannot be run layer by layer")
    return best[1], best[2], best[3]


def _tell_linear(observer: Observer, name: str) -> Any:
    def hook(_module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if inputs and isinstance(output, Tensor):
            observer.linear(name, inputs[0], output)

    return hook


def _tell_experts(observer: Observer, name: str) -> Any:
    def hook(_module: nn.Module, inputs: tuple[Any, ...]) -> None:
        for item in inputs:
            if isinstance(item, Tensor) and not item.is_floating_point():
                observer.experts(name, item)

    return hook


def _repeated(item: Any, sequences: int, times: int) -> Any:
    """An argument of a layer for `times` batches in one: what has one row a sequence is repeated."""
    if isinstance(item, tuple):
        return tuple(_repeated(part, sequences, times) for part in item)
    if isinstance(item, Tensor) and item.dim() > 0 and item.shape[0] == sequences and sequences > 1:
        return item.repeat(times, *([1] * (item.dim() - 1)))
    return item


def _first(output: Any) -> Tensor:
    tensor: Tensor = output[0] if isinstance(output, tuple) else output
    return tensor


def _is_stack(layer: nn.Module, name: str) -> bool:
    """Whether a parameter is a stack of experts' matrices, to be read one at a time."""
    if "experts" not in name.split("."):
        return False
    shape = _get(layer, name).shape
    return len(shape) == 3


def _meta_shape(model: nn.Module, name: str) -> tuple[int, ...]:
    value = _get(model, name)
    return tuple(value.shape)


def _get(module: nn.Module, name: str) -> Any:
    parent, _, leaf = name.rpartition(".")
    return getattr(module.get_submodule(parent), leaf)


def _put(module: nn.Module, name: str, value: Any) -> None:
    """Set a parameter, a buffer or a stack by its dotted name."""
    parent, _, leaf = name.rpartition(".")
    owner = module.get_submodule(parent)
    if isinstance(value, ExpertStack):
        owner._parameters.pop(leaf, None)
        object.__setattr__(owner, leaf, value)
        return
    if leaf in vars(owner) and isinstance(vars(owner)[leaf], ExpertStack):
        object.__delattr__(owner, leaf)
    if leaf in owner._buffers:
        owner._buffers[leaf] = value
    else:
        owner._parameters[leaf] = value if isinstance(value, nn.Parameter) else nn.Parameter(value, requires_grad=False)


def _replace(model: nn.Module, name: str, new: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, new)
