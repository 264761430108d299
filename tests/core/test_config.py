"""Tests of settings files."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boneage_cli.core.config import Experiment
from boneage_cli.core.experiment_file import experiment_to_toml, load_experiment, parse_experiment
from boneage_cli.core.settings_errors import flatten
from boneage_cli.errors import BoneageError, BoneageWarning

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.toml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_settings_file_of_the_project_is_accepted(path: Path) -> None:
    assert path.read_text().startswith("# "), "the first line says what the file is for"
    assert load_experiment(path).name


def test_defaults_survive_a_round_trip_through_toml(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text(experiment_to_toml(Experiment()))
    assert load_experiment(path) == Experiment()


def test_a_misspelt_setting_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(BoneageError, match=r"training\.epoch; did you mean training\.epochs\?"):
        parse_experiment({"training": {"epoch": 3}}, "x.toml")


def test_a_setting_in_the_wrong_section_is_shown_its_place() -> None:
    with pytest.raises(BoneageError, match=r"did you mean training\.learning_rate"):
        parse_experiment({"model": {"learning_rate": 3}}, "x.toml")


def test_a_wrong_value_is_named_with_its_key_and_the_file() -> None:
    with pytest.raises(
        BoneageError, match=r"x\.toml: training\.batch_size: must be at least 1, not 0"
    ):
        parse_experiment({"training": {"batch_size": 0}}, "x.toml")


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"training": {"epochs": 3, "frozen_epochs": 4}}, "no more than epochs"),
        (
            {"training": {"schedule": "triangular", "learning_rate": 1e-4}},
            "cyclic_base = 0.0001 must lie below learning_rate = 0.0001",
        ),
        ({"model": {"gender": False, "targets": ["sex"]}, "data": {"sex": "F"}}, "one sex alone"),
        ({"training": {"epochs": 3, "warmup_epochs": 4}}, "must be less than epochs"),
        ({"model": {"gender": True, "targets": ["sex"]}}, "input and target at once"),
        ({"model": {"family": "globl"}}, "global"),
        ({"training": {"betas": [0.9, 1.5]}}, r"training\.betas: must be less than 1, not 1\.5"),
        ({"training": {"epochs": True}}, r"training\.epochs: true is not allowed here"),
        (
            {"training": {"learning_rate": float("inf")}},
            "learning_rate: must be a finite number, not inf",
        ),
        (
            {"augmentation": {"scale": 2}},
            r"augmentation\.scale: must be less than 1 or a list, not 2",
        ),
        ({"model": {"hidden": 128}}, r"model\.hidden: must be a list, not 128"),
        ({"model": {"hidden": [-3]}}, r"model\.hidden: must be at least 1, not -3$"),
        ({"model": {"dropout": 5}}, r"model\.dropout: must be less than 1 or a list, not 5$"),
        ({"model": {"dropout": [0.1, 1.2]}}, r"model\.dropout: must be less than 1, not 1\.2$"),
        ({"model": {"dropout": [0.1, 0.1, 0.1]}}, r"model: 3 dropout rates .* for 1 dense layers"),
        ({"model": {"activation": ["relu", "elu"]}}, r"model: 2 activations .* for 1 dense layers"),
        (
            {"model": {"activation": ["rleu"]}},
            r"model\.activation: must be 'relu', .* or 'gelu', not 'rleu'$",
        ),
        ({"model": {"channels": {"hand": [-3]}}}, r"model\.channels: must be at least 1, not -3$"),
        ({"model": {"channels": {"hand": []}}}, r"model\.channels: must be of 1 or more values"),
        ({"model": {"channels": {"handx": [8]}}}, r"model: unknown view in channels 'handx'"),
        ({"model": {"backbone": {"carpal": "m46"}}}, r"model: backbone has .* none for hand"),
        ({"model": {"sex_features": [4, 0]}}, r"model\.sex_features: must be at least 1, not 0$"),
        ({"model": {"sex_features": [8, 4]}}, r"model: an embedding has one width"),
        (
            {"model": {"weights": "imagnet"}},
            r"model\.weights: only imagenet, none, run folders and",
        ),
        ({"model": {"targets": ["x"]}}, r"model\.targets: must be 'age' or 'sex', not 'x'$"),
        ({"model": {"gender": "maybe"}}, r"model\.gender: must be true or false, not 'maybe'"),
        ({"model": 3}, r"model: must be a section of settings, not 3"),
    ],
)
def test_contradictory_settings_are_refused_with_the_reason(
    values: dict[str, object], reason: str
) -> None:
    with pytest.raises(BoneageError, match=reason):
        parse_experiment(values, "x.toml")


@pytest.mark.parametrize(
    "setting",
    ["normalisation", "pooling", "branch_activation", "sex_fusion", "activation", "head"],
)
def test_a_misspelt_part_is_refused_with_the_names_that_exist(setting: str) -> None:
    with pytest.raises(
        BoneageError, match=rf"^x: model\.{setting}: must be '.*' or .*, not 'foo'$"
    ):
        parse_experiment({"model": {setting: "foo"}}, "x")


def test_a_misspelt_loss_is_refused_before_anything_is_made() -> None:
    with pytest.raises(BoneageError, match="huber"):
        load_experiment(overrides=["training.loss=hubr"])
    with pytest.raises(BoneageError, match="delta"):
        load_experiment(overrides=["training.loss=huber", "training.loss_options={detla=1}"])


def test_a_precision_may_be_written_as_a_number() -> None:
    assert load_experiment(overrides=["training.precision=32"]).training.precision == "32"


def test_options_win_over_the_file_and_set_wins_over_options(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text("[training]\nepochs = 7\nseed = 1\n[model]\ngender = true\n")
    experiment = load_experiment(
        path, overrides=["training.epochs=9"], flags={"training.epochs": 8, "model.gender": False}
    )
    assert (experiment.training.epochs, experiment.training.seed) == (9, 1)
    assert experiment.model.gender is False


def test_a_file_that_is_not_there_or_not_toml_is_named(tmp_path: Path) -> None:
    with pytest.raises(BoneageError, match=r"absent\.toml"):
        load_experiment(tmp_path / "absent.toml")
    bad = tmp_path / "bad.toml"
    bad.write_text("epochs: 3")
    with pytest.raises(BoneageError, match=r"bad\.toml: not a TOML file"):
        load_experiment(bad)


def test_the_mark_that_windows_puts_before_text_is_no_setting(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("training.epochs = 3\n", encoding="utf-8-sig")
    assert load_experiment(path).training.epochs == 3
    path.write_text("training.epochs = 3\n", encoding="utf-16")
    with pytest.raises(BoneageError, match="not in UTF-8, as TOML is; save it as UTF-8"):
        load_experiment(path)


def test_a_seed_that_no_generator_takes_is_refused() -> None:
    with pytest.raises(BoneageError, match=r"training\.seed: must be at most 4294967295, "):
        load_experiment(overrides=["training.seed=18446744073709551616"])


def test_an_override_without_a_value_is_refused() -> None:
    with pytest.raises(BoneageError, match=r"section\.key=value"):
        load_experiment(overrides=["training.epochs"])


@settings(deadline=None, max_examples=50)
@given(
    epochs=st.integers(2, 10_000),
    rate=st.floats(1e-9, 10, allow_nan=False),
    text=st.text(max_size=30),
)
def test_values_arrive_as_written(epochs: int, rate: float, text: str) -> None:
    experiment = load_experiment(
        overrides=[f"training.epochs={epochs}", f"training.learning_rate={rate!r}"]
    )
    assert experiment.training.epochs == epochs
    assert experiment.training.learning_rate == rate
    flat = dict(flatten({"a": {"b": text}}))
    assert flat == {"a.b": text}


def test_another_loss_keeps_the_scale_of_a_recipe_and_leaves_options_that_it_does_not_have() -> (
    None
):
    recipe = Path(__file__).parents[2] / "configs" / "s1-global.toml"
    assert load_experiment(recipe).training.loss_options == {"delta": 10}
    with pytest.warns(BoneageWarning, match="^training.loss_options: delta of .* huber left out$"):
        other = load_experiment(recipe, ["training.loss=mae"])
    assert other.training.loss_options == {}
    assert load_experiment(recipe, ["training.epochs=1"]).training.loss_options == {"delta": 10}
    with pytest.raises(BoneageError, match="unknown option of loss mae"):
        load_experiment(recipe, ["training.loss=mae", "training.loss_options={delta = 3}"])


def test_a_setting_of_which_stages_have_their_own_is_changed_with_a_warning(
    recwarn: pytest.WarningsRecorder,
) -> None:
    recipe = Path(__file__).parents[2] / "configs" / "rsna.toml"
    experiment = load_experiment(recipe, ["training.epochs=1"], {"training.batch_size": 16})
    (warning,) = recwarn
    assert str(warning.message).startswith(
        "training.epochs: stages of the settings file have their own (3 of 4)"
    )
    assert experiment.training.epochs == 1
    load_experiment(recipe, ["name=other", "stages=[]", "training.epochs=1"])
    assert len(recwarn) == 1


def test_a_mistake_beside_a_file_is_told_with_what_stands_beside_it() -> None:
    recipe = Path(__file__).parents[2] / "configs" / "quick.toml"
    with pytest.raises(
        BoneageError, match=r"quick\.toml with training\.epochs=0: training\.epochs"
    ):
        load_experiment(recipe, ["training.epochs=0"])


def test_a_sex_that_joins_nothing_is_refused() -> None:
    with pytest.raises(BoneageError, match="leaves the sex out; set gender = false"):
        parse_experiment({"model": {"sex_fusion": "none"}}, "x.toml")


@pytest.mark.parametrize("setting", ["sex_norm = true", "sex_dropout = 0.2"])
def test_settings_of_layers_that_are_not_there_are_refused(tmp_path: Path, setting: str) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(f"[model]\ngender = true\nsex_fusion = 'embedding'\n{setting}\n")
    with pytest.raises(BoneageError, match="which sex_fusion = 'embedding' does not have"):
        load_experiment(file)
    file.write_text(f"[model]\ngender = true\nsex_fusion = 'mlp'\n{setting}\n")
    load_experiment(file)
