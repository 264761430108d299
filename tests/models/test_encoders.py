from __future__ import annotations

import pytest
import timm
import torch

from boneage_cli.models.encoders import KERAS_NAMES, build_encoder, feature_size


@pytest.mark.parametrize(
    "backbone",
    [
        "small_cnn",
        "test_efficientnet",  # its last convolution is before the pooling
        "mobilenetv3_small_050",  # its last convolution is after the pooling
        "test_convnext",  # has a normalisation after the pooling
        "test_resnet",
        "test_mambaout",  # returns channels last
        "test_vit",  # returns tokens
    ],
)
def test_a_backbone_gives_feature_maps_and_every_weight_learns(backbone: str) -> None:
    encoder = build_encoder(backbone, input_size=(96, 64))
    maps = encoder(torch.randn(2, 1, 96, 64))
    assert maps.shape[:2] == (2, encoder.channels)
    assert maps.shape[2] > maps.shape[3]
    maps.square().sum().backward()
    assert [name for name, weight in encoder.named_parameters() if weight.grad is None] == []


def test_tokens_keep_their_places() -> None:
    encoder = build_encoder("test_vit", input_size=(96, 64)).eval()
    tokens = torch.arange(6 * 4 + 1.0).reshape(1, 25, 1)  # a class token, then 6 rows of 4
    maps = encoder._unfold_tokens(tokens, torch.zeros(1, 1, 96, 64))
    assert torch.equal(maps, torch.arange(1, 25.0).reshape(1, 1, 6, 4))


def test_tokens_that_form_no_grid_are_refused() -> None:
    encoder = build_encoder("test_vit", input_size=(96, 96))
    with pytest.raises(ValueError, match="form no grid"):
        encoder._unfold_tokens(torch.zeros(1, 38, 8), torch.zeros(1, 1, 96, 96))


def test_m46_leaves_six_by_four_positions_of_its_published_input() -> None:
    assert feature_size(build_encoder("m46"), 1, (500, 375)) == 384 * 6 * 4


def test_an_image_too_small_for_the_backbone_is_refused() -> None:
    with pytest.raises(ValueError, match="64 × 48 pixels are too few"):
        feature_size(build_encoder("m46"), 1, (64, 48))
    with pytest.raises(ValueError, match="200 × 126 pixels are too few"):
        build_encoder("m46", input_size=(200, 126))
    assert feature_size(build_encoder("m46", input_size=(127, 127)), 1, (127, 127)) == 384
    six_blocks = (4, 4, 4, 4, 4, 4)
    with pytest.raises(ValueError, match="64 × 63 pixels are too few"):
        build_encoder("small_cnn", channels=six_blocks, input_size=(64, 63))
    smallest = build_encoder("small_cnn", channels=six_blocks, input_size=(64, 64))
    assert feature_size(smallest, 1, (64, 64)) == 4


@pytest.mark.parametrize(
    ("name", "near"),
    [("resnet_50", "resnet50"), ("convnext-tiny", "convnext_tiny"), ("smallcnn", "small_cnn")],
)
def test_an_unknown_backbone_is_refused_with_the_nearest_names(name: str, near: str) -> None:
    with pytest.raises(ValueError, match=f"unknown backbone '{name}'; did you mean .*{near}"):
        build_encoder(name)


def test_unknown_weights_of_a_known_backbone_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown weights of a backbone"):
        build_encoder("resnet50.a1_in1")


def test_a_backbone_of_fixed_size_asks_for_the_size() -> None:
    with pytest.raises(ValueError, match="set input_size"):
        build_encoder("test_vit")


def test_the_names_that_keras_gives_its_backbones_are_understood() -> None:
    assert build_encoder("mobilenet_v3_small").name == "mobilenetv3_small_100"
    assert all(timm.is_model(name) for name in KERAS_NAMES.values())


def test_channels_of_the_small_network_can_be_set() -> None:
    encoder = build_encoder("small_cnn", channels=(4, 8, 12, 16))
    assert encoder(torch.zeros(1, 1, 32, 48)).shape == (1, 16, 2, 3)
    with pytest.raises(ValueError, match="channels"):
        build_encoder("small_cnn", channels=())
