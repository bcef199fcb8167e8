"""What is measured of one checkpoint: each matrix as an audit measures it, and the rival diagnostics beside."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from llmtrap.calibrate import older
from llmtrap.models import Count, Model
from llmtrap.spectra.measured import Alpha, Measured, Traps


class Layer(Measured):
    """One weight matrix. Of some hundred checkpoints a run, so without histograms and without the traps one by one."""

    alpha: Alpha
    traps: Traps
    name: str
    shape: tuple[Count, Count]
    entries: Count = Field(description="of the first shuffle's traps, those of cause entry")
    edge_ratio: float = Field(description="largest shuffled eigenvalue / Marchenko-Pastur edge of the bulk variance")
    centred_edge_ratio: float = Field(description="the same after the mean is taken out before the shuffle")
    mp_ks: float = Field(description="Kolmogorov-Smirnov distance of the shuffled bulk from Marchenko-Pastur")
    mp_p: float
    weight_entropy: float = Field(description="−Σ|w| log|w|")

    @model_validator(mode="before")
    @classmethod
    def _of_an_older_schema(cls, given: Any) -> Any:
        return older.layer(given) if older.is_layer(given) else given

    @property
    def short(self) -> str:
        """Its name without the suffix, under which an audit knows it."""
        return self.name.removesuffix(".weight")


class Diagnostics(Model):
    """What the network does, without its spectra (arXiv 2602.02859, appendix B)."""

    train_accuracy: float = Field(description="share of examples whose largest logit is the label's")
    test_accuracy: float
    train_loss: float
    test_loss: float
    far_accuracy: float | None = Field(default=None, description="on examples outside the training distribution")
    l2: float = Field(description="√Σ‖W‖² over the weight matrices")
    circuit_complexity: float = Field(
        description="Σ over training examples of KL(softmax z ‖ softmax z'), z' with a tenth of the weights 0"
    )
    sparsity: tuple[float, ...] = Field(description="share of activations at 0 on the training set, by hidden layer")
    dead: tuple[Count, ...] = Field(description="units that fire on no training example, by hidden layer")
    class_share: tuple[float, ...] = Field(
        description="share of Gaussian probes that the commonest class takes, by scale of the probes"
    )


class Measurement(Diagnostics):
    """One checkpoint of one run."""

    step: Count
    seconds: float = Field(description="CPU seconds of training so far")
    layers: tuple[Layer, ...]
