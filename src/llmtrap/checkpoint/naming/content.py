"""The words within a layer, or of a name without layers, read from left to right: what the matrix does."""

from __future__ import annotations

from collections.abc import Collection

from llmtrap.checkpoint.naming.grammar import Grammar
from llmtrap.checkpoint.naming.siblings import leaf_among_siblings
from llmtrap.checkpoint.naming.standing import WORDY, standing_role
from llmtrap.checkpoint.naming.terms import INPUT_PROJECTION, NUMBER, PAIR, Context, Words

_ATTENTION = ("attention", "cross_attention", "linear_attention")
_PROJECTIONS = ("proj", "projection", "linear")
_TABLES = ("position", "query_tokens")
_WITHIN = (("position", "embedding"), ("patch_embedding", INPUT_PROJECTION))  # the second is a module of the first
_STICKY = frozenset(  # what comes below belongs to them
    {"router", "modulation", "box_head", "classifier.iou", "classifier.object", "position.projection", "projector"}
)


class Content:
    """The words within a layer, or of a name without layers, as they are read from left to right."""

    def __init__(self, grammar: Grammar, context: Context, part: str, *, in_layer: bool, dimensions: int):
        self._grammar, self._context = grammar, context
        self._part, self._in_layer, self._dimensions = part, in_layer, dimensions
        self.group: str | None = None
        self.expert: int | None = None
        self.others: list[int] = []
        self.extras: list[str] = []
        self._leaf: tuple[str | None, str] | None = None
        self._standing: str | None = None
        self._generic: str | None = None
        self._qualifiers: list[str] = []
        self._alone: str | None = None
        self._before = ""
        self._projects = False
        self._convolves = False

    def number(self, kind: Words, at: int, dropped: Collection[int]) -> None:
        """A number: of an expert, or one among several modules of a list."""
        before = kind[at - 1] if at else ""
        if self._grammar.groups.get(before) in ("experts", "shared_experts") or (
            self.group in ("experts", "shared_experts") and self.expert is None
        ):
            self.expert = at
            return
        if at in dropped:
            return
        values = self._context.indices.get(kind[: at + 1], ())
        in_list = self.group == "mlp" or self._part == "projector" or (self._in_layer and before == "net")
        pair = len(values) == 2 and not self._leaf and in_list
        if pair and self._standing is None and kind[at + 1 :] in ((), ("proj",), ("linear",), (NUMBER,)):
            self._leaf = (self.group or "mlp", PAIR)
            self.others.append(at)
            return
        if not (len(values) == 1 and self._leaf):
            self.others.append(at)

    def word(self, kind: Words, at: int, *, consumed: bool) -> None:
        """One word."""
        word, grammar = kind[at], self._grammar
        before, self._before = self._before, word
        if word in grammar.qualifiers:
            self._qualifiers.append(word)
            return
        if word == "layers" and kind[at + 1 :] == (NUMBER,):  # a list of single modules
            self._projects |= self._standing in _TABLES
            return
        if (sibling := self._among_siblings(kind, at)) is not None:
            self._leaf = (self.group or "mlp", sibling)
            return
        if self._standing in _STICKY:
            return
        single = self._part == "value_head" and not self._in_layer  # its layers are a head's, whatever their words
        if word in grammar.groups and not single and not (at == len(kind) - 1 and grammar.leaf_of(word, self.group)):
            self._enter(kind, at, grammar.groups[word])
            return
        leads_out = self._standing == "unembedding" and word == "output"
        if leads_out or (word in grammar.transparent and (self._leaf or self._standing)):
            self._projects |= word in _PROJECTIONS
            if word == "dense" and before in ("lm_head", "head"):
                self._standing = "unembedding.transform"
            return
        beside = not self._in_layer and self.group is None and self._part in WORDY and word in grammar.outside
        if not beside and (found := self._leaf_of(word)) is not None:
            self._leaf, self._standing = found, None
            return
        if (standing := self._role_alone(kind, at)) is not None:
            if (self._standing, standing) not in _WITHIN:
                self._standing, self._leaf = standing, None
            return
        listed = _embeds(word) and all(it == NUMBER for it in kind[at + 1 :])  # a list of embeddings
        if (consumed and at < len(kind) - 1 and not listed) or word in grammar.wrappers:
            return
        if (bare := word.rstrip("0123456789").rstrip("_")) in grammar.transparent:
            self._projects |= bare in _PROJECTIONS
            self._generic = self._generic or bare
            return
        if any(
            piece.startswith(("conv", "dwconv", "pwconv", "depthwise", "pointwise", "downsample"))
            for piece in word.lower().split("_")
        ):
            self._convolution(word, before)
            return
        table = not self._in_layer and self.group is None and _embeds(word)
        if not table and (near := grammar.near_leaf(word, self.group)) is not None:
            self._leaf = near
        elif not table and (group := grammar.near_group(word)) is not None:
            self.extras.append(word)
            self._enter(kind, at, group)
        elif self._standing == "embedding" and before == "embeddings" and _embeds(word):
            self._standing = f"embedding.{_rest(word)}"
        elif (not consumed or _embeds(word)) and word not in ("encoder", "decoder"):
            self.extras.append(word)

    def _role_alone(self, kind: Words, at: int) -> str | None:
        """The role without a group that a word means where the reading stands, or None."""
        following = kind[at + 1] if at < len(kind) - 1 else NUMBER
        says_nothing = following == NUMBER or (following in self._grammar.transparent and not _embeds(following))
        side = kind[at] == "decoder" and not says_nothing
        if side or (self.group == "experts" and self._dimensions == 3):  # maps, whatever a table may be called
            return None
        beside = self._context.children.get(kind[:at], ())
        role = standing_role(self._grammar, kind[at], beside, self._part, self.group, in_layer=self._in_layer)
        convolves = role == "unembedding" and self._dimensions > 2 and kind[at] in self._grammar.outside
        return None if convolves else role

    def _leaf_of(self, word: str) -> tuple[str | None, str] | None:
        """The group and leaf of a word where the reading stands."""
        if self.group is None and not self._in_layer:
            if self._part == "value_head" or word in ("query", "key", "value"):  # a head, or a learned query
                return None
            if self._part == "projector" and word not in self._grammar.transparent:
                return self._grammar.leaf_of(word, None) or self._grammar.leaf_of(word, "mlp")
        return self._grammar.leaf_of(word, self.group)

    def _among_siblings(self, kind: Words, at: int) -> str | None:
        """What the words beside this one make of it: w1 is a gate beside w2 and w3."""
        if self.group in _ATTENTION:
            return None
        own = self.group is None and not self._in_layer
        return leaf_among_siblings(kind, at, self._grammar, self._context, own=own)

    def _enter(self, kind: Words, at: int, group: str) -> None:
        """Begin a group; a narrower one stays: the attention within cross-attention, the MLP within an expert."""
        word = kind[at]
        if word in self._grammar.crossing and "self_attn" in self._context.children.get(kind[:at], ()):
            group = "cross_attention"
        self._alone = self._grammar.alone.get(word, self._alone)
        if group == "experts" and self.group in _ATTENTION:
            self._qualifiers.append("experts")
            return
        if group == "ssm" and self._is_attention(kind, at):
            group = "attention"
        if group == "convolution":
            self._convolves = True
            if self._leaf is not None and self._leaf[0] == group:
                return
            if self.group in (*_ATTENTION, "ssm"):
                self._leaf = (self.group, word)
                return
        if (group == "attention" and self.group in _ATTENTION) or (
            group == "mlp" and self.group in ("experts", "shared_experts")
        ):
            return
        self.group, self._leaf, self._standing = group, None, None

    def _is_attention(self, kind: Words, at: int) -> bool:
        """Whether a mixer of this name mixes by attention: it has its matrices, none of a state space, no experts."""
        below = self._context.children.get(kind[: at + 1], ())
        if any(self._grammar.groups.get(word) == "experts" for word in below):
            return False
        own = [self._grammar.anywhere[word][0] for word in below if word in self._grammar.anywhere]
        return "attention" in own and not any(word in below for word in ("in_proj", "x_proj", "conv1d", "linear_x"))

    def _convolution(self, word: str, before: str) -> None:
        """A convolution: of the group, or on its own; the kernel of a projection is that projection."""
        self._convolves = True
        if self._leaf is not None and word in ("conv", "conv1d", "conv_1d") and before not in self.extras:
            return
        own = self.group if self.group in (*_ATTENTION, "ssm") else "convolution"
        self._leaf, self._standing = (own, word), None

    def role(self) -> tuple[str, bool]:
        """The role, and whether the tables know it."""
        if self._standing is not None:
            if self._standing in _TABLES and self._projects:  # a module of maps that has the name of a table
                return f"{self._standing}.projection", True
            if self._standing == INPUT_PROJECTION and self._dimensions > 2:
                return "projector", True
            if self._standing == "embedding" and self._dimensions > 3:
                return "patch_embedding", True
            return self._standing, True
        if self._leaf is not None:
            group, leaf = self._leaf
            stacked = (
                self._dimensions == 3
                and not self._convolves
                and group == "mlp"
                and leaf in ("gate", "up", "down", "gate_up")
            )
            return self._joined("experts" if stacked else group, leaf), True
        if self.group is None and self._qualifiers:
            self.group = "mlp"
        if self.group is not None and not (self._part == "projector" and self._before in self._grammar.groups):
            inside = self._grammar.inside[self.group]
            if self._generic is not None and self._generic in inside:
                return self._joined(self.group, inside[self._generic]), True
            if self._alone is not None and not self.extras:
                return self._joined(self.group, self._alone), True
            if self.extras:
                listed = self.group == "mlp" and bool(self.others)
                convolves = self._dimensions > 3 or (self._convolves and self._dimensions > 2)
                return self._joined(self.group, self.extras[-1]), listed or convolves
            return self._joined(self.group, None), bool(self.others) or self._convolves
        if self._part in ("projector", "value_head"):
            return ("projector" if self._part == "projector" else "classifier"), True
        if self._part == "draft" and self._generic in ("fc", "proj", "linear") and self.group is None:
            return INPUT_PROJECTION, True
        if self._part == "draft" and self._in_layer and not self._before:
            return "unembedding", True  # the last module of a head, which has no word of its own
        if self._part == "diffusion" and not self._in_layer:
            return ".".join(["projection", *self.extras[-1:]]), True
        if self._part in ("vision", "audio") and not self._in_layer and self._generic in _PROJECTIONS:
            return "projector", True
        if self._dimensions > 2:
            return ".".join(("convolution", *self.extras[-1:])), True
        embeds = next((word for word in reversed(self.extras) if _embeds(word)), None)
        if embeds is not None:
            rest = _rest(embeds)
            return f"embedding.{rest}" if rest else "embedding", True
        words = [*self._qualifiers, *self.extras] or ([self._generic] if self._generic else [])
        return ".".join(words) or self._before or "weight", False

    def _joined(self, group: str | None, leaf: str | None) -> str:
        return ".".join(word for word in (group, *self._qualifiers, leaf) if word)


def _rest(word: str) -> str:
    """What a word says beside that it is an embedding."""
    return "_".join(piece for piece in word.split("_") if not piece.startswith(("emb", "table")))


def _embeds(word: str) -> bool:
    """Whether a word names an embedding."""
    return "embed" in word or word.endswith("_emb")
