"""Tests that keyword arguments of ``Network`` reproduce every published system.

The numbers of weights are those of the published code (trainable weights without a backbone's
classifier), unless a comment explains the difference.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from boneage_cli.models.families import FAMILIES
from boneage_cli.models.losses import build_loss
from boneage_cli.models.network import Network

S1: dict[str, Any] = {
    "backbone": "small_cnn",
    "normalisation": "zscore",
    "sex_fusion": "embedding",
    "sex_features": 8,
    "dropout": 0.2,
}
S2: dict[str, Any] = {
    "views": FAMILIES["global"],
    "backbone": "legacy_xception",
    "in_channels": 3,
    "normalisation": "half",
}
S2_ATTENTION: dict[str, Any] = {
    "branch_hidden": (512,),
    "branch_activation": "swish",
    "branch_dropout": (0.5, 0.2),
    "dropout": (0, 0, 0.2),
}
S4: dict[str, Any] = {
    "views": FAMILIES["global"],
    "backbone": "m46",
    "normalisation": "half",
    "input_size": (500, 375),
    "pooling": "flatten",
    "hidden": (2048, 2048),
    "activation": "elu",
    "dropout": 0.3,
}

SYSTEMS: dict[str, tuple[dict[str, Any], int]] = {
    "S1 global": (S1 | {"views": FAMILIES["global"], "hidden": (64,)}, 295_729),
    "S1 global without sex": (
        S1 | {"views": FAMILIES["global"], "hidden": (64,), "sex_fusion": "none"},
        295_201,
    ),
    "S1 roi": (
        S1
        | {
            "views": FAMILIES["roi"],
            "channels": (32, 64),
            "branch_hidden": (32,),
            "hidden": (64,),
        },
        139_281,
    ),
    "S1 fusion": (
        S1
        | {
            "views": FAMILIES["fusion"],
            "channels": {"hand": (32, 64, 128), "carpal": (32, 64), "metaph": (32, 64)},
            "branch_hidden": {"hand": (128,), "carpal": (32,), "metaph": (32,)},
            "hidden": (256, 128),
        },
        522_417,
    ),
    "S2 baseline": (
        S2 | {"hidden": (500,), "activation": "tanh", "dropout": (0.5, 0.25)},
        21_831_953,
    ),
    "S2 sex": (
        S2
        | {
            "branch_hidden": (1024, 512),
            "branch_activation": ("tanh", "relu"),
            "branch_dropout": (0.5, 0.2),
            "sex_fusion": "mlp",
            "sex_features": 32,
            "hidden": (512, 512),
            "dropout": (0, 0, 0.2),
        },
        23_972_201,
    ),
    # The last convolution of the mask is shared by all positions: 17 weights, not 17 per position.
    "S2 attention": (
        S2
        | S2_ATTENTION
        | {
            "pooling": "attention",
            "sex_fusion": "mlp",
            "sex_features": 16,
            "hidden": (512, 512),
        },
        22_665_770,
    ),
    # Keys and values come from the 2048 channels of the feature maps instead of from sex.
    "S2 improved attention": (
        S2
        | S2_ATTENTION
        | {
            "pooling": "attention_deep",
            "sex_fusion": "cross_attention_gated",
            "sex_features": (32, 16),
            "sex_dropout": 0.15,
            "attention_heads": 4,
            "hidden": (512, 256),
        },
        25_475_962,
    ),
    "S3": (
        {
            "views": FAMILIES["global"],
            "backbone": "convnext_tiny",
            "in_channels": 3,
            "normalisation": "half",
            "pooling": "gem",
            "sex_fusion": "mlp",
            "sex_features": (16, 32),
            "sex_norm": True,
            "hidden": (512, 64),
            "activation": "mish",
            "dropout": (0.5, 0.4),
            "norm": True,
            "head": "sigmoid",
            "max_age": 240,
        },
        28_264_834,
    ),
    "S4 age": (S4 | {"age_mean": 120, "age_std": 120}, 24_751_201),
    "S4 sex": (S4 | {"targets": ("sex",)}, 24_751_201),
}


# Smaller backbones of the same kind, which a test can train.
SMALLER = {"legacy_xception": "test_resnet", "convnext_tiny": "test_convnext"}


@pytest.mark.parametrize("system", SYSTEMS)
def test_each_published_system_is_built_with_its_number_of_weights(system: str) -> None:
    arguments, weights = SYSTEMS[system]
    with torch.device("meta") if arguments["backbone"] == "m46" else torch.device("cpu"):
        network = Network(**arguments)
    assert sum(weight.numel() for weight in network.parameters()) == weights


@pytest.mark.parametrize("system", [name for name in SYSTEMS if "without" not in name])
def test_each_published_system_learns_with_every_weight(system: str) -> None:
    arguments, _ = SYSTEMS[system]
    torch.manual_seed(0)
    size = (64, 64)
    if "input_size" in arguments:
        # Large enough to leave one position after six halvings.
        size = (127, 127)
        arguments = arguments | {"input_size": size, "hidden": (32, 32)}
    backbone = SMALLER.get(arguments["backbone"], arguments["backbone"])
    arguments = arguments | {"backbone": backbone}
    network = Network(**arguments)
    views = {view: torch.randint(256, (2, 1, *size), dtype=torch.uint8) for view in network.views}
    outputs = network(views, torch.tensor([0.0, 1.0]))
    if "age" in outputs:
        assert outputs["age"].shape == (2,)
        loss = build_loss("mae")(outputs["age"], torch.tensor([12.0, 200.0]))
    else:
        assert outputs["sex"].shape == (2,)
        loss = outputs["sex"].square().sum()
    loss.backward()
    still = [
        name
        for name, weight in network.named_parameters()
        if weight.grad is None or not weight.grad.isfinite().all()
    ]
    assert still == []
