from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from boneage_cli.models.dense import BatchNorm, DenseLayers
from boneage_cli.models.fusion import FUSIONS, CrossAttention, SexEmbedding, SexLayers
from boneage_cli.models.names import Activation, AgeHead, Fusion, Normalisation, Pooling
from boneage_cli.models.network import Network, encoder_parameters, freeze_encoder, head_parameters
from boneage_cli.models.normalise import Normalise
from boneage_cli.models.pooling import POOLINGS, GeM, SpatialAttention, build_pooling


def tiny(views: tuple[str, ...] = ("hand",), **settings: Any) -> Network:
    torch.manual_seed(0)
    arguments: dict[str, Any] = {"backbone": "small_cnn", "channels": (4, 8), "hidden": (8,)}
    return Network(views, **arguments | settings)


def hands(count: int = 3, *views: str) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        view: torch.randint(256, (count, 1, 32, 32), dtype=torch.uint8, generator=generator)
        for view in views or ("hand",)
    }


BOYS_AND_GIRL = torch.tensor([1.0, 1.0, 0.0])


@pytest.mark.parametrize(
    ("setting", "name"),
    [
        (setting, name)
        for setting, names in (
            ("normalisation", Normalisation),
            ("pooling", Pooling),
            ("activation", Activation),
            ("sex_fusion", Fusion),
            ("head", AgeHead),
        )
        for name in get_args(names)
    ],
)
def test_every_part_that_settings_can_name_can_be_built(setting: str, name: str) -> None:
    network = tiny(input_size=(32, 32), **{setting: name}).eval()
    assert network(hands(), BOYS_AND_GIRL)["age"].shape == (3,)


# Inputs


def test_bytes_and_floats_of_the_same_gray_values_give_the_same_age() -> None:
    network = tiny().eval()
    images = hands()
    floats = {view: image.float() for view, image in images.items()}
    assert torch.equal(network(images)["age"], network(floats)["age"])


@pytest.mark.parametrize("normalisation", ["auto", "zscore", "half", "imagenet", "unit"])
@pytest.mark.parametrize("gray", [0, 128, 255])
def test_a_blank_image_gives_a_number(normalisation: str, gray: int) -> None:
    network = tiny(normalisation=normalisation)
    blank = torch.full((2, 1, 32, 32), float(gray), requires_grad=True)
    age = network({"hand": blank})["age"]
    age.sum().backward()
    assert age.isfinite().all()
    assert blank.grad is not None
    assert blank.grad.isfinite().all()


@settings(deadline=None, max_examples=30)
@given(gain=st.floats(0.3, 3), offset=st.floats(-50, 50), seed=st.integers(0, 1000))
def test_zscores_do_not_depend_on_exposure(gain: float, offset: float, seed: int) -> None:
    image = torch.rand(2, 1, 9, 7, generator=torch.Generator().manual_seed(seed)) * 200
    zscore = Normalise("zscore", 1)
    assert torch.allclose(zscore(image), zscore(gain * image + offset), atol=1e-3)
    assert torch.allclose(zscore(image).mean((1, 2, 3)), torch.zeros(2), atol=1e-5)
    assert torch.allclose(zscore(image).var((1, 2, 3), correction=0), torch.ones(2), atol=1e-3)


def test_each_normalisation_scales_black_and_white_as_its_name_says() -> None:
    image = torch.tensor([0.0, 255.0]).reshape(1, 1, 1, 2)
    half = Normalise("half", 3)(image)
    assert half.shape == (1, 3, 1, 2)
    assert half[0, 2].tolist() == [[-1.0, 1.0]]
    assert Normalise("unit", 1)(image).flatten().tolist() == [0.0, 1.0]
    white = Normalise("imagenet", 3)(image)[0, :, 0, 1]
    assert torch.allclose(white, torch.tensor([0.515 / 0.229, 0.544 / 0.224, 0.594 / 0.225]))


def test_auto_is_what_the_weights_of_the_backbone_were_trained_with() -> None:
    lite = tiny(backbone="tf_efficientnet_lite0", in_channels=3).normalise["hand"]
    image = torch.tensor([0.0, 255.0]).reshape(1, 1, 1, 2)
    assert torch.equal(lite(image), Normalise("half", 3)(image))
    mobile = tiny(backbone="mobilenetv3_small_050", in_channels=3).normalise["hand"]
    assert torch.equal(mobile(image), Normalise("imagenet", 3)(image))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ({}, "hand is missing"),
        ({"hand": torch.zeros(2, 3, 32, 32)}, r"must be \(B, 1, H, W\)"),
        ({"hand": torch.zeros(1, 32, 32)}, r"must be \(B, 1, H, W\)"),
    ],
)
def test_views_that_are_missing_or_of_a_wrong_shape_are_refused(
    images: dict[str, Tensor], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        tiny()(images)


# Views


def test_every_view_counts_and_others_are_left_alone() -> None:
    network = tiny(("carpal", "metaph")).eval()
    images = hands(2, "hand", "carpal", "metaph")
    age = network(images)["age"]
    for view in ("carpal", "metaph"):
        changed = images | {view: 255 - images[view].roll(5, 3)}
        assert not torch.allclose(network(changed)["age"], age)
    assert torch.equal(network(images | {"hand": images["carpal"]})["age"], age)


def test_each_view_can_have_its_own_encoder() -> None:
    network = tiny(
        ("hand", "carpal"),
        backbone={"hand": "test_resnet", "carpal": "small_cnn"},
        branch_hidden={"hand": (16,), "carpal": (4,)},
    )
    assert network(hands(2, "hand", "carpal"))["age"].shape == (2,)
    assert network.encoders["carpal"].channels == 8
    assert network.neck[1].in_features == 20


# Sex


@pytest.mark.parametrize("fusion", [name for name in FUSIONS if name != "none"])
def test_sex_changes_the_age_and_is_demanded(fusion: str) -> None:
    network = tiny(sex_fusion=fusion).eval()
    images = hands(2)
    boy, girl = network(images, torch.ones(2))["age"], network(images, torch.zeros(2))["age"]
    assert (boy - girl).abs().min() > 1e-4
    with pytest.raises(ValueError, match="needs the child's sex"):
        network(images)


def test_a_network_without_sex_takes_none() -> None:
    network = tiny().eval()
    images = hands()
    assert torch.equal(network(images)["age"], network(images, BOYS_AND_GIRL)["age"])


def test_a_mixture_of_sexes_gets_the_mixture_of_their_vectors() -> None:
    embedding = SexEmbedding(8)
    girl, boy, mixed = embedding(torch.tensor([[0.0], [1.0], [0.25]]))
    assert torch.allclose(mixed, 0.75 * girl + 0.25 * boy)


def test_gates_can_be_read_and_mix_image_and_sex() -> None:
    outputs = tiny(sex_fusion="cross_attention_gated", sex_features=(8, 4))(hands(), BOYS_AND_GIRL)
    gate = outputs["gate"]
    assert gate.shape == (3, 4)
    assert ((gate > 0) & (gate < 1)).all()


def test_sex_decides_where_the_cross_attention_looks() -> None:
    # With a single key the softmax is 1 and the query gets no gradient: a bug of BoneAge.
    torch.manual_seed(0)
    attention = CrossAttention(8, [6], 4, heads=2)
    sex = torch.rand(2, 4)
    attention(torch.rand(2, 8), [torch.rand(2, 6, 5, 5)], sex).square().sum().backward()
    gradient = attention.query[0].weight.grad
    assert gradient is not None
    assert gradient.abs().max() > 1e-6
    one_token = CrossAttention(8, [6], 4, heads=2)
    one_token(torch.rand(2, 8), [torch.rand(2, 6, 1, 1)], sex).square().sum().backward()
    gradient = one_token.query[0].weight.grad
    assert gradient is not None
    assert gradient.abs().max() < 1e-6


# Pooling


@pytest.mark.parametrize("name", [name for name in POOLINGS if name != "flatten"])
def test_pooling_gives_one_number_per_channel_within_its_range(name: str) -> None:
    maps = torch.rand(2, 8, 5, 7) + 1
    pooling = build_pooling(name, 8).eval()
    pooled = pooling(maps)
    assert pooled.shape == (2, 8)
    assert (pooled >= maps.amin((2, 3)) - 0.01).all()
    assert (pooled <= maps.amax((2, 3)) + 0.01).all()


def test_gem_goes_from_the_mean_to_the_maximum() -> None:
    maps = torch.rand(2, 8, 5, 7)
    assert torch.allclose(GeM(1.0)(maps), maps.mean((2, 3)), atol=1e-5)
    assert torch.allclose(GeM(300.0)(maps), maps.amax((2, 3)), atol=0.02)
    assert GeM().exponent.item() == 3


@pytest.mark.parametrize("exponent", [1.0, 3.0, 8.0, 20.0])
def test_gem_of_negative_features_has_a_finite_gradient(exponent: float) -> None:
    pooling = GeM(exponent)
    maps = -torch.rand(1, 2, 4, 4, requires_grad=True)
    pooling(maps).sum().backward()
    assert pooling.exponent.grad is not None
    assert pooling.exponent.grad.isfinite()


def test_attention_is_a_mean_weighted_by_its_mask() -> None:
    attention = SpatialAttention(4).eval()
    maps = torch.rand(2, 4, 3, 3)
    normed = attention.norm(maps)
    mask = attention.mask(normed).sigmoid()
    expected = [
        np.average(normed[i, c].detach().numpy(), weights=mask[i, 0].detach().numpy())
        for i in range(2)
        for c in range(4)
    ]
    assert attention(maps).flatten().tolist() == pytest.approx(expected, rel=1e-5)


def test_flatten_needs_the_size_of_the_views() -> None:
    with pytest.raises(ValueError, match="flatten needs input_size"):
        tiny(pooling="flatten")
    network = tiny(pooling="flatten", input_size=(32, 32))
    assert network.neck[1].in_features == 8 * 8 * 8


# Heads


def test_an_untrained_network_begins_near_the_mean_age() -> None:
    age = tiny(age_mean=90.0, age_std=30.0)(hands())["age"]
    assert (age - 90).abs().max() < 10
    assert age.dtype == torch.float32


def test_the_scale_of_ages_travels_with_the_weights() -> None:
    trained, fresh = tiny(age_mean=60.0, age_std=10.0).eval(), tiny().eval()
    fresh.load_state_dict(trained.state_dict())
    assert torch.equal(fresh(hands())["age"], trained(hands())["age"])


def test_the_sigmoid_head_stays_between_birth_and_its_largest_age() -> None:
    network = tiny(head="sigmoid", max_age=228)
    network.heads["age"].linear.weight.data *= 1e6
    age = network(hands(8))["age"]
    assert ((age >= 0) & (age <= 228)).all()


def test_the_distribution_is_one_of_months_and_the_age_its_expectation() -> None:
    outputs = tiny(head="distribution", max_age=228)(hands())
    probabilities = outputs["distribution"]
    assert probabilities.shape == (3, 229)
    assert torch.allclose(probabilities.sum(1), torch.ones(3))
    expectation = probabilities @ torch.arange(229.0)
    assert torch.allclose(outputs["age"], expectation, atol=1e-3)


def test_age_and_sex_can_be_predicted_at_once() -> None:
    outputs = tiny(targets=("age", "sex"))(hands())
    assert outputs["age"].shape == outputs["sex"].shape == (3,)
    assert set(tiny(targets=("sex",))(hands())) == {"sex"}


@pytest.mark.parametrize("head", ["linear", "sigmoid", "distribution"])
def test_half_precision_leaves_ages_in_full_precision(head: str) -> None:
    network = tiny(head=head, sex_fusion="mlp").eval()
    images, male = hands(), BOYS_AND_GIRL
    exact = network(images, male)["age"]
    with torch.autocast("cpu", torch.bfloat16):
        age = network(images, male)["age"]
    assert age.dtype == torch.float32
    assert not torch.equal(age, age.bfloat16().float())
    assert torch.allclose(age, exact, atol=2)


# Training


def test_a_batch_of_one_trains_where_batches_are_normalised() -> None:
    network = tiny(sex_fusion="mlp", sex_features=(4, 4), sex_norm=True, hidden=(8, 8), norm=True)
    network.train()
    network(hands(3), BOYS_AND_GIRL)
    age = network(hands(1), torch.ones(1))["age"]
    age.sum().backward()
    assert age.isfinite().all()
    assert all(weight.grad is not None for weight in network.parameters())


def test_every_weight_is_the_encoders_or_the_heads() -> None:
    network = tiny(("carpal", "metaph"), pooling="attention", sex_fusion="gated")
    groups = [*encoder_parameters(network), *head_parameters(network)]
    assert {id(weight) for weight in groups} == {id(weight) for weight in network.parameters()}
    assert len(groups) == len(list(network.parameters()))


def test_a_frozen_encoder_keeps_its_weights_and_its_statistics() -> None:
    network = tiny(pooling="attention")
    freeze_encoder(network, True)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network.train()
    optimiser = torch.optim.SGD([w for w in network.parameters() if w.requires_grad], lr=0.01)
    network(hands())["age"].sum().backward()
    optimiser.step()
    changed = {
        name for name, value in network.state_dict().items() if not torch.equal(value, before[name])
    }
    assert not any(name.startswith("encoders.") for name in changed)
    assert "pooling.hand.norm.running_mean" in changed
    assert "heads.age.linear.weight" in changed


def test_a_released_encoder_learns_again() -> None:
    network = tiny().train()
    freeze_encoder(network, True)
    assert not network.encoders["hand"].training
    assert network.training
    freeze_encoder(network, False)
    assert network.encoders["hand"].training
    network(hands())["age"].sum().backward()
    assert all(weight.grad is not None for weight in encoder_parameters(network))
    freeze_encoder(network.eval(), False)
    assert not network.encoders["hand"].training


def test_dropout_stands_before_each_dense_layer_and_where_else_it_is_set() -> None:
    def rates(layers: DenseLayers) -> list[float]:
        return [getattr(layer, "p", -1) for layer in layers]

    assert rates(DenseLayers(4, (3, 2), dropout=0.2)) == [0.2, -1, -1, 0.2, -1, -1]
    assert rates(DenseLayers(4, (3, 2), dropout=(0.5, 0.4))) == [0.5, -1, -1, 0.4, -1, -1]
    assert rates(DenseLayers(4, (3,), dropout=(0.5, 0.25))) == [0.5, -1, -1, 0.25]
    assert rates(DenseLayers(4, (), dropout=0.3)) == [0.3]


def test_weights_fit_a_network_with_another_dropout() -> None:
    trained = DenseLayers(4, (3, 2), dropout=0.2, norm=True)
    DenseLayers(4, (3, 2), norm=True).load_state_dict(trained.state_dict())
    DenseLayers(4, (3, 2), dropout=(0, 0.5), norm=True).load_state_dict(trained.state_dict())


# Serving


@pytest.mark.parametrize(
    "settings",
    [
        {"sex_fusion": "embedding"},
        {"sex_fusion": "cross_attention_gated", "pooling": "attention_deep", "head": "sigmoid"},
        {"sex_fusion": "mlp", "pooling": "gem", "norm": True, "head": "distribution"},
    ],
)
def test_an_exported_network_takes_any_batch_and_answers_alike(settings: dict[str, Any]) -> None:
    network = tiny(**settings).eval()
    batch = torch.export.Dim("batch", min=1, max=64)
    exported = torch.export.export(
        network, (hands(3), BOYS_AND_GIRL), dynamic_shapes=({"hand": {0: batch}}, {0: batch})
    ).module()
    for count in (1, 5):
        images, male = hands(count), torch.ones(count)
        assert torch.allclose(
            exported(images, male)["age"], network(images, male)["age"], atol=1e-3
        )


def test_channels_last_gives_the_same_age() -> None:
    network = tiny(pooling="attention", sex_fusion="cross_attention").eval()
    expected = network(hands(), BOYS_AND_GIRL)["age"]
    network.to(memory_format=torch.channels_last)
    assert torch.allclose(network(hands(), BOYS_AND_GIRL)["age"], expected, atol=1e-3)


# Unknown or contradictory settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"backbone": "efficientnet_b00"}, "did you mean efficientnet_b0"),
        ({"pooling": "gemm"}, "did you mean gem"),
        ({"sex_fusion": "embeding"}, "did you mean embedding"),
        ({"head": "sigmoyd"}, "did you mean sigmoid"),
        ({"activation": "rellu"}, "did you mean relu"),
        ({"normalisation": "z-score"}, "did you mean zscore"),
        ({"targets": ("age", "sexx")}, "did you mean sex"),
        ({"targets": ()}, "targets is empty"),
        ({"targets": ("sex",), "sex_fusion": "mlp"}, "tells the network the sex"),
        ({"in_channels": 2}, "in_channels must be 1 or 3"),
        ({"channels": {"carpal": (4,)}}, "none for hand"),
        ({"channels": {"hand": (4,), "hnad": (4,)}}, "did you mean hand"),
        ({"hidden": (8, 0)}, "at least 1 wide"),
        ({"hidden": (8, 8), "activation": ("relu",)}, "1 activations"),
        ({"dropout": (0.1, 0.2, 0.3)}, "3 dropout rates"),
        ({"dropout": 1.0}, "less than 1"),
        ({"sex_fusion": "mlp", "sex_features": ()}, "sex_features"),
        ({"sex_fusion": "embedding", "sex_features": (8, 4)}, "an embedding has one width"),
        ({"sex_fusion": "cross_attention", "attention_heads": 3}, "3 attention heads"),
        ({"max_age": 0}, "at least 1 month"),
    ],
)
def test_settings_that_cannot_be_are_refused_with_the_reason(
    settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        tiny(**settings)


@pytest.mark.parametrize("views", ["hand", (), ("hand", "hand")])
def test_views_must_be_different_names(views: Any) -> None:
    with pytest.raises(ValueError, match="views must name"):
        tiny(views)


def test_a_sigmoid_reaches_from_birth_to_its_largest_age_and_no_further() -> None:
    network = tiny(head="sigmoid", max_age=228)
    head = network.heads["age"].linear
    torch.nn.init.zeros_(head.weight)
    for bias, age in ((-50.0, 0), (0.0, 114), (50.0, 228)):
        torch.nn.init.constant_(head.bias, bias)
        assert network(hands())["age"].tolist() == pytest.approx([age] * 3, abs=1e-3)


def test_the_layers_that_encode_sex_are_normalised_before_each_activation_but_the_last() -> None:
    kinds = [type(layer) for layer in SexLayers((8, 6, 4), norm=True, dropout=0.3)]
    linear, relu = torch.nn.Linear, torch.nn.ReLU
    first = [linear, BatchNorm, relu]
    assert kinds == [*first, *first, linear, relu, torch.nn.Dropout]
    widths = [
        layer.num_features for layer in SexLayers((8, 6, 4), norm=True) if type(layer) is BatchNorm
    ]
    assert widths == [8, 6]
    plain = [type(layer) for layer in SexLayers((8, 6))]
    assert plain == [linear, relu, linear, relu, torch.nn.Dropout]
