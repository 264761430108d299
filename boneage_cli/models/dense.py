"""Stacks of fully connected layers, as in the published systems."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from boneage_cli.models.names import unknown_name
from boneage_cli.models.options import activations_of, dropout_rates

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "swish": nn.SiLU,
    "mish": nn.Mish,
    "elu": nn.ELU,
    "gelu": nn.GELU,
}


class DenseLayers(nn.Sequential):
    """Layers of [batch norm →] dropout → linear → activation.

    Args:
        features: Width of the input.
        hidden: Widths of the layers; may be empty.
        activation: A name in ``ACTIVATIONS`` for all layers, or one per layer.
        dropout: One probability for every layer (for the input if there are no layers), or one per
            layer, optionally with one more for the output of the last layer.
        norm: Whether each layer begins with batch normalisation.

    Attributes:
        features: Width of the output.

    Raises:
        ValueError: A name, a width, a probability or their number is invalid.
    """

    def __init__(
        self,
        features: int,
        hidden: Sequence[int] = (),
        *,
        activation: str | Sequence[str] = "relu",
        dropout: float | Sequence[float] = 0.0,
        norm: bool = False,
    ) -> None:
        if any(width < 1 for width in hidden):
            raise ValueError(f"dense layers must be at least 1 wide, not {tuple(hidden)}")
        names = activations_of(hidden, activation)
        rates = dropout_rates(hidden, dropout)
        layers: list[nn.Module] = []
        for width, name, rate in zip(hidden, names, rates, strict=False):
            layers += [BatchNorm(features)] if norm else []
            # Dropout of 0 is added, too: the position determines the names of later weights, which
            # otherwise would not fit a network with another rate.
            layers += [nn.Dropout(rate)]
            layers += [_linear(features, width, name), _build_activation(name)]
            features = width
        layers += [nn.Dropout(rates[-1])] if rates[-1] else []
        super().__init__(*layers)
        self.features = features


class BatchNorm(nn.BatchNorm1d):
    """Batch normalisation that can also train on a batch of one example.

    Such a batch (often the last one of an epoch) is normalised with the running statistics,
    because plain batch normalisation raises an error on it.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalises features of shape (B, F)."""
        if self.training and input.shape[0] == 1:
            return functional.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        return super().forward(input)


def _build_activation(name: str) -> nn.Module:
    """Makes the activation of that name; raises ValueError if it is unknown."""
    if name not in ACTIVATIONS:
        raise unknown_name("activation", name, ACTIVATIONS)
    return ACTIVATIONS[name]()


def _linear(features: int, width: int, activation: str) -> nn.Linear:
    layer = nn.Linear(features, width)
    if activation == "tanh":
        nn.init.xavier_uniform_(layer.weight)
    else:
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    nn.init.zeros_(layer.bias)
    return layer
