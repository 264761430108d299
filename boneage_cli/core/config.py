"""The settings of an experiment: their schema, their TOML form, defaults and overrides."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import (
    Field,
    PositiveFloat,
    ValidationError,
    field_validator,
    model_validator,
)

from boneage_cli.core.settings_errors import explain
from boneage_cli.errors import BoneageError, BoneageWarning
from boneage_cli.files import whole_file
from boneage_cli.imaging.preprocessing import Preprocessing
from boneage_cli.models.families import resolve_family
from boneage_cli.models.losses import LOSSES, build_loss, options_of
from boneage_cli.settings_section import Section

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


Share = Annotated[float, Field(ge=0, lt=1)]
# A setting of each view: one value for all, or a table with one per view.
Widths = tuple[int, ...]
PerView = dict[str, Widths]


class ModelSettings(Section):
    """The network: views of the hand → encoder → pooling → join with sex → head → months."""

    family: str = Field(
        "global",
        description="Views that the network sees: global (the whole hand), carpal or "
        "metacarpal (one region), roi (both regions) or fusion (all three)",
    )
    gender: bool = Field(True, description="Whether the child's sex is an input of the network")
    backbone: str | dict[str, str] = Field(
        "tf_efficientnet_lite0",
        description="Encoder network: the name of a timm model, small_cnn or m46",
    )
    weights: str = Field(
        "imagenet",
        description="Initial weights: imagenet (pretrained), none (random) or a .safetensors file",
    )
    channels: Widths | PerView = Field(
        (32, 64, 128), description="Number of channels of each block of small_cnn"
    )
    in_channels: Literal[1, 3] = Field(
        3, description="Input channels of the encoder; the grayscale image is repeated to fill them"
    )
    normalisation: str = Field(
        "auto",
        description="How gray values are normalised: auto (the backbone's own, or zscore if "
        "it has none), zscore (per image), half (to −1…1), imagenet (by ImageNet's mean and SD) "
        "or unit (to 0…1)",
    )
    pooling: str = Field(
        "avg",
        description="How feature maps are pooled: avg (mean), gem (generalised mean, as in "
        "BoneXage), attention or attention_deep (weighted by a learnt spatial mask, as in "
        "the Keras system BoneAge) or flatten (every position kept)",
    )
    branch_hidden: Widths | PerView = Field(
        (),
        description="Widths of the dense layers of each view, before the views are joined; "
        "empty for none",
    )
    branch_activation: str | tuple[str, ...] = Field(
        "relu", description="Activation of the branch_hidden layers: one for all, or one per layer"
    )
    branch_dropout: float | tuple[float, ...] = Field(
        0.0,
        description="Dropout rate before each branch_hidden layer: one for all, or one per layer",
    )
    sex_fusion: str = Field(
        "embedding",
        description="How sex is combined with the image features: embedding or mlp "
        "(concatenation), gated (g · image + (1 − g) · sex, the image features projected to "
        "sex_features), cross_attention (sex is the query, image positions are keys and values) "
        "or cross_attention_gated (both)",
    )
    sex_features: int | Widths = Field(
        8,
        description="Number of features that encode sex; or, except with embedding, a list: "
        "the widths of the dense layers that encode it",
    )
    sex_norm: bool = Field(
        False, description="Batch normalisation between the dense layers that encode sex"
    )
    sex_dropout: float = Field(
        0.0, ge=0, lt=1, description="Dropout rate after the dense layers that encode sex"
    )
    attention_heads: int = Field(4, ge=1, description="Number of heads of the cross-attention")
    hidden: Widths = Field((128,), description="Widths of the dense layers before the output layer")
    activation: str | tuple[str, ...] = Field(
        "relu",
        description="Activation of the hidden layers, one for all or one per layer: relu, "
        "tanh, swish, mish, elu or gelu",
    )
    dropout: float | tuple[float, ...] = Field(
        0.2, description="Dropout rate before each hidden layer: one for all, or one per layer"
    )
    norm: bool = Field(False, description="Batch normalisation at the start of each hidden layer")
    head: str = Field(
        "linear",
        description="Output layer: linear, sigmoid (scaled to 0…max_age) or distribution "
        "(expectation of a softmax over months)",
    )
    max_age: float = Field(
        240, ge=1, description="Largest age that a sigmoid or distribution head can predict, months"
    )
    targets: tuple[Literal["age", "sex"], ...] = Field(
        ("age",), min_length=1, description="What the network predicts: age, sex, or both"
    )

    @field_validator("family")
    @classmethod
    def _known_family(cls, value: str) -> str:
        return resolve_family(value)

    @property
    def needs_sex(self) -> bool:
        """Whether the sex must be known, because it is an input or a target."""
        return self.gender or "sex" in self.targets

    @model_validator(mode="after")
    def _sex_is_input_or_target(self) -> ModelSettings:
        if self.gender and "sex" in self.targets:
            raise ValueError("sex cannot be input and target at once; set gender = false")
        if self.gender and self.sex_fusion == "none":
            raise ValueError("sex_fusion = 'none' leaves the sex out; set gender = false instead")
        if self.gender and self.sex_fusion == "embedding" and (self.sex_norm or self.sex_dropout):
            raise ValueError(
                "sex_norm and sex_dropout are for dense layers, which sex_fusion = 'embedding' "
                "does not have; choose mlp, or leave them out"
            )
        return self


class DataSettings(Section):
    """Which radiographs of a data set are trained on."""

    sex: Literal["both", "F", "M"] = Field(
        "both",
        description="Children to train and validate on: both sexes, girls only (F) or boys "
        "only (M), as ml-recipe-bone-age offers",
    )
    train_images: int = Field(
        0,
        ge=0,
        description="Number of training radiographs to use, sampled with stratification by "
        "sex and age; 0 for all",
    )
    validation_images: int = Field(
        0,
        ge=0,
        description="Number of validation radiographs to use, sampled likewise; 0 for all. "
        "For quick trials: fewer give wider intervals",
    )


class RegionSettings(Section):
    """The carpal and metacarpal regions of the roi and fusion families, and registration."""

    height: int = Field(192, ge=32, le=2048, description="Height of a region's image, pixels")
    width: int = Field(192, ge=32, le=2048, description="Width of a region's image, pixels")
    registered_hand: bool = Field(
        False,
        description="Rotate, scale and crop the whole hand to one standard pose by its key "
        "points, as in ml-recipe-bone-age",
    )
    background_removed: bool = Field(
        False,
        description="Make everything but the hand black, in the regions and in a registered hand",
    )


class AugmentationSettings(Section):
    """Random changes of training images; a single number is the maximum in either direction."""

    enabled: bool = Field(True, description="Whether training images are augmented at all")
    flip: float = Field(0.5, ge=0, le=1, description="Probability of a horizontal flip")
    rotate: float = Field(15, ge=0, le=180, description="Maximum rotation, degrees")
    translate: float = Field(
        0.05, ge=0, lt=1, description="Maximum shift, as a fraction of the image's width and height"
    )
    scale: Annotated[float, Field(ge=0, lt=1)] | tuple[PositiveFloat, PositiveFloat] = Field(
        0.15,
        description="Maximum change of size, as a fraction; or the smallest and the largest "
        "scale factor, such as [0.9, 1]",
    )
    aspect: float = Field(
        0, ge=0, lt=1, description="Maximum change of the aspect ratio, as a fraction"
    )
    shear: float = Field(0, ge=0, lt=90, description="Maximum shear, degrees")
    brightness: float = Field(
        0.1, ge=0, lt=1, description="Maximum change of brightness, as a fraction of full white"
    )
    contrast: float = Field(
        0.2, ge=0, lt=1, description="Maximum change of contrast, as a fraction"
    )
    gamma: float = Field(0.2, ge=0, lt=1, description="Maximum change of gamma, as a fraction")
    blur: float = Field(
        0,
        ge=0,
        le=10,
        description="Maximum standard deviation of the Gaussian blur, pixels; half of the "
        "images are blurred",
    )
    noise: float = Field(
        0,
        ge=0,
        lt=1,
        description="Maximum standard deviation of the Gaussian noise, as a fraction of full "
        "white; weak noise is more frequent",
    )
    degraded: float = Field(
        0,
        ge=0,
        le=1,
        description="Share of the radiographs that each epoch shows as degraded copies: "
        "darker, faded, blurred, downsampled, noisy or JPEG-compressed, or several of these",
    )

    @model_validator(mode="after")
    def _ordered(self) -> AugmentationSettings:
        low, high = self.scale_range
        if low > high:
            raise ValueError(f"scale = [{low:g}, {high:g}] is not from a smaller to a larger size")
        return self

    @property
    def share_degraded(self) -> float:
        """The share of radiographs shown as degraded copies; 0 if augmentation is disabled."""
        return self.degraded if self.enabled else 0.0

    @property
    def scale_range(self) -> tuple[float, float]:
        """The smallest and the largest scale factor."""
        if isinstance(self.scale, tuple):
            return self.scale
        return 1 - self.scale, 1 + self.scale


CYCLICAL = ("triangular", "triangular2", "exp_range")
"""The schedules that cycle between two learning rates."""


class TrainingSettings(Section):
    """The optimisation: epochs, learning rate, loss, precision, and the epoch that is kept."""

    epochs: int = Field(20, ge=1, description="Number of passes over the training radiographs")
    batch_size: int = Field(32, ge=1, description="Radiographs per batch and device")
    optimiser: Literal["adam", "adamw", "sgd"] = Field(
        "adamw", description="Optimiser: adam, adamw, or sgd with Nesterov momentum"
    )
    learning_rate: float = Field(
        1e-3, gt=0, description="Learning rate; the maximum of the schedule"
    )
    weight_decay: float = Field(
        1e-2,
        ge=0,
        description="Weight decay, applied to weight matrices and convolution kernels only",
    )
    betas: tuple[Share, Share] = Field(
        (0.9, 0.999),
        description="β₁ and β₂ of adam and adamw; the first is also the momentum of sgd",
    )
    schedule: Literal["constant", "plateau", "cosine", "triangular", "triangular2", "exp_range"] = (
        Field(
            "cosine",
            description="Learning-rate schedule; triangular, triangular2 and exp_range are "
            "cyclical",
        )
    )
    warmup_epochs: float = Field(
        1, ge=0, description="Epochs of linear warm-up with the cosine schedule"
    )
    final_rate: float = Field(
        0.01,
        ge=0,
        le=1,
        description="Final learning rate of the cosine schedule, as a fraction of learning_rate",
    )
    cyclic_base: float = Field(
        1e-4, gt=0, description="Lowest learning rate of the cyclical schedules"
    )
    cyclic_steps: int = Field(
        2000, ge=1, description="Optimiser steps per half cycle of the cyclical schedules"
    )
    cyclic_gamma: float = Field(
        0.99994, gt=0, le=1, description="Factor by which exp_range shrinks its swing at each step"
    )
    plateau_factor: float = Field(
        0.2,
        gt=0,
        lt=1,
        description="Factor by which the plateau schedule multiplies the learning rate",
    )
    plateau_patience: int = Field(
        3,
        ge=0,
        description="Epochs without improvement that the plateau schedule tolerates before "
        "it lowers the rate",
    )
    plateau_monitor: Literal["mae", "loss"] = Field(
        "mae",
        description="Validation metric that the plateau schedule monitors: mae (the error "
        "rate if sex is the only target) or loss",
    )
    minimum_rate: float = Field(
        1e-6, ge=0, description="Lowest learning rate of the plateau schedule"
    )
    loss: str = Field(
        "mae", description=f"Loss function: {', '.join([*LOSSES][:-1])} or {[*LOSSES][-1]}"
    )
    loss_options: dict[str, float] = Field(
        default_factory=dict,
        description="Options of the loss, such as {delta = 10}: scale (months per unit of "
        "the loss) "
        "with any loss; "
        + "; ".join(
            f"{', '.join(options_of(name))} with {name}" for name in LOSSES if options_of(name)
        ),
    )
    gradient_clip: float = Field(1.0, ge=0, description="Maximum gradient norm; 0 for no clipping")
    accumulate: int = Field(
        1, ge=1, description="Batches whose gradients are accumulated for one optimiser step"
    )
    ema: float = Field(
        0,
        ge=0,
        lt=1,
        description="Decay of the exponential moving average of the weights, which is what "
        "is validated and kept; 0 for none",
    )
    norm_images: int = Field(
        1024,
        ge=0,
        description="Training images on which the statistics of batch normalisation are "
        "recomputed before each validation; 0 to keep the running averages",
    )
    patience: int = Field(
        0,
        ge=0,
        description="Early stopping: epochs without a better validation MAE (error rate, if "
        "sex is the only target) after which training stops; 0 for never",
    )
    frozen_epochs: int = Field(
        0, ge=0, description="Number of first epochs in which the encoder is frozen"
    )
    fine_tune_rate: float = Field(
        1.0, gt=0, description="Learning rate of the encoder, as a fraction of learning_rate"
    )
    head_fine_tune_rate: float = Field(
        1.0,
        gt=0,
        description="Learning rate of all other layers after the frozen epochs, as a "
        "fraction of learning_rate",
    )
    teacher: int = Field(
        0,
        ge=0,
        description="Distillation: number of the stage whose predicted ages become part of "
        "the target; 0 for none",
    )
    teacher_share: float = Field(
        0.5,
        gt=0,
        le=1,
        description="Weight of the teacher's predicted ages in the target; the rest is the "
        "known age",
    )
    anew: bool = Field(
        False,
        description="With a teacher: start from model.weights, possibly with another "
        "backbone, instead of from the weights of the previous stage",
    )
    mixup: float = Field(0, ge=0, description="α of the Beta distribution of mixup; 0 for no mixup")
    label_noise: float = Field(
        0,
        ge=0,
        description="Standard deviation of the Gaussian noise added to known ages in "
        "training, months; 0 for none",
    )
    precision: Literal["auto", "32", "bf16", "fp16"] = Field(
        "auto",
        description="Arithmetic of training: 32 (fp32), bf16, fp16 (GPU only), or auto: bf16 "
        "where the GPU or CPU supports it, fp16 on older GPUs, else 32",
    )
    keep: Literal["best", "last"] = Field(
        "best",
        description="Epoch whose model is kept: best (lowest validation error, which makes "
        "the validation figures slightly optimistic) or last",
    )
    keep_every: int = Field(
        0, ge=0, description="Also keep the model of every N-th epoch; 0 for none"
    )
    log_every: int = Field(
        0, ge=0, description="Write a row to batches.csv every N batches; 0 for no such file"
    )
    deterministic: bool = Field(
        False, description="Use deterministic operations only, and stop with an error at any other"
    )
    compile: bool = Field(False, description="Compile the network with torch.compile")
    seed: int = Field(
        42,
        ge=0,
        le=2**32 - 1,
        description="Seed of the random initial weights, the order of radiographs, "
        "augmentation and folds",
    )

    @field_validator("precision", mode="before")
    @classmethod
    def _number_or_text(cls, value: object) -> object:
        return str(value) if isinstance(value, int) else value

    @model_validator(mode="after")
    def _consistent(self) -> TrainingSettings:
        # Raises ValueError if the loss or its options are invalid.
        build_loss(self.loss, **self.loss_options)
        # If both are equal, only the head is trained.
        if self.frozen_epochs > self.epochs:
            raise ValueError(
                f"frozen_epochs = {self.frozen_epochs} must be no more than epochs = {self.epochs}"
            )
        if self.schedule in CYCLICAL and self.cyclic_base >= self.learning_rate:
            raise ValueError(
                f"cyclic_base = {self.cyclic_base:g} must lie below learning_rate = "
                f"{self.learning_rate:g}, between which schedule = '{self.schedule}' goes"
            )
        if self.schedule == "cosine" and self.warmup_epochs >= self.epochs > 1:
            raise ValueError(
                f"warmup_epochs = {self.warmup_epochs:g} must be less than epochs = {self.epochs}"
            )
        return self


class Experiment(Section):
    """All that decides what a run learns, except the radiographs themselves."""

    name: str = Field(
        "global",
        pattern=r"^[A-Za-z0-9._-]+$",
        description="Name of the experiment, which the run folder's name ends with",
    )
    data: DataSettings = Field(default_factory=DataSettings)
    preprocessing: Preprocessing = Field(default_factory=Preprocessing)
    model: ModelSettings = Field(default_factory=ModelSettings)
    regions: RegionSettings = Field(default_factory=RegionSettings)
    augmentation: AugmentationSettings = Field(default_factory=AugmentationSettings)
    training: TrainingSettings = Field(default_factory=TrainingSettings)
    stages: tuple[dict[str, Any], ...] = Field(
        (),
        description="Trainings that run first, each from the weights of the one before: a "
        "table for each, with the settings that differ from the rest of the file (teacher and "
        "anew are not shared)",
    )

    @model_validator(mode="after")
    def _sex_can_be_told(self) -> Experiment:
        if "sex" in self.model.targets and self.data.sex != "both":
            raise ValueError("sex cannot be learnt from one sex alone; set data.sex = both")
        return self


def load_experiment(
    path: Path | None = None,
    overrides: Sequence[str] = (),
    flags: Mapping[str, Any] | None = None,
) -> Experiment:
    """Reads settings from a TOML file, then applies flags, then ``section.key=value`` overrides.

    Args:
        path: The settings file, or one of HDA_Project's YAML files; None for the defaults.
        flags: Values by dotted key, such as ``model.gender``; None leaves a setting as it is.
        overrides: Such as ``training.epochs=5``; the value is parsed as TOML, else taken as text.

    Warns:
        BoneageWarning: A setting is ignored: a key of a YAML file that has no meaning here, or an
            option that the chosen loss does not have.

    Raises:
        BoneageError: The file cannot be read, a key is unknown (the message names the nearest known
            one), or a value is invalid (the message gives the reason).
    """
    values: dict[str, Any] = {}
    if path is not None and Path(path).suffix.lower() in (".yaml", ".yml"):
        from boneage_cli.core.hda_project_yaml import experiment_values_from_hda_project_yaml

        # The layers in HDA_Project's file depend on the family, which the file does not name.
        family = (flags or {}).get("model.family")
        for override in overrides:
            key, _, value = override.partition("=")
            family = toml_or_text(value) if key.strip() == "model.family" else family
        values, notes = experiment_values_from_hda_project_yaml(Path(path), family)
        for note in notes:
            _warn(note)
    elif path is not None:
        try:
            # Editors of Windows begin a file with a mark that TOML does not know.
            values = tomllib.loads(Path(path).read_text(encoding="utf-8-sig"))
        except OSError as error:
            raise BoneageError(f"{path}: cannot be read ({error.strerror}); see configs/") from None
        except UnicodeDecodeError:
            raise BoneageError(f"{path}: not in UTF-8, as TOML is; save it as UTF-8") from None
        except tomllib.TOMLDecodeError as error:
            raise BoneageError(f"{path}: not a TOML file: {error}") from None
    loss = _loss_of(values)
    chosen = {key: value for key, value in (flags or {}).items() if value is not None}
    for key, value in chosen.items():
        _assign(values, key, value)
    for override in overrides:
        _apply_override(values, override)
    given = [*(f"{key}={value}" for key, value in chosen.items()), *overrides]
    if _loss_of(values) != loss and not any("loss_options" in each for each in given):
        _leave_options_of(loss, values)
    file = str(path) if path else "settings"
    # The mistake may be in the file, a flag or an override.
    return parse_experiment(values, f"{file} with {', '.join(given)}" if given else file)


def _loss_of(values: Mapping[str, Any]) -> Any:
    training = values.get("training")
    return training.get("loss", "mae") if isinstance(training, Mapping) else "mae"


def _leave_options_of(loss: Any, values: dict[str, Any]) -> None:
    """Drops options of the file's loss that the newly chosen loss does not have."""
    training = values["training"]
    options = training.get("loss_options")
    if not isinstance(options, Mapping):
        return
    known = ("scale", *options_of(str(training["loss"])))
    kept = {name: value for name, value in options.items() if name in known}
    if left := sorted(options.keys() - kept.keys()):
        training["loss_options"] = kept
        _warn(f"training.loss_options: {', '.join(left)} of the file's loss {loss} left out")


def _warn(note: str) -> None:
    warnings.warn(note, BoneageWarning, stacklevel=3)


def parse_experiment(values: Mapping[str, Any], source: str) -> Experiment:
    """Validates settings against the schema.

    Args:
        values: Nested tables, as in TOML.
        source: The file's name, for messages.

    Raises:
        BoneageError: A key or value is invalid; the message says which and why.
    """
    try:
        experiment = Experiment.model_validate(values)
    except ValidationError as error:
        raise BoneageError(f"{source}: " + "; ".join(explain(error, Experiment))) from None
    earlier_stages(experiment, source)
    return experiment


def earlier_stages(experiment: Experiment, source: str = "settings") -> list[Experiment]:
    """Returns the experiments of the earlier stages, in order, see ``Experiment.stages``.

    Args:
        experiment: The experiment.
        source: The file's name, for messages.

    Raises:
        BoneageError: A stage is invalid; the message says which and why.
    """
    stages = []
    for number, changes in enumerate(experiment.stages, 1):
        values = experiment.model_dump(mode="json", exclude={"stages"})
        values["name"] = f"{experiment.name}-stage-{number}"
        # Not inherited: the final training's teacher is often a later stage than this one.
        values["training"] |= {"teacher": 0, "anew": False}
        for key, change in changes.items():
            # Settings of a section are replaced one by one; a setting that is a table as a whole.
            named = change if isinstance(change, Mapping) else {"": change}
            for name, value in named.items():
                _assign(values, f"{key}.{name}".rstrip("."), value)
        stage = parse_experiment(values, f"{source}: stage {number}")
        if _held_out_by(stage) != _held_out_by(experiment):
            raise BoneageError(
                f"{source}: stage {number}: training.seed, data.sex and whether sex matters cannot "
                "differ: they decide which radiographs are held out"
            )
        stages.append(stage)
    for number, (before, stage) in enumerate(pairwise([*stages, experiment]), 1):
        if stage.model.weights != before.model.weights and not stage.training.anew:
            raise BoneageError(
                f"{source}: stage {number} has other model.weights than what comes after it and "
                "takes up what it has learnt; those of the first stand in [model]"
            )
    return stages


def _held_out_by(experiment: Experiment) -> tuple[object, ...]:
    """The settings that determine which radiographs a fold holds out."""
    return experiment.training.seed, experiment.data.sex, experiment.model.needs_sex


def experiment_to_toml(experiment: Experiment) -> str:
    """Formats settings as TOML, which ``load_experiment`` reads back to the same settings."""
    return tomli_w.dumps(experiment.model_dump(mode="json"))


def write_experiment(experiment: Experiment, path: Path) -> None:
    """Writes the settings as a TOML file."""
    with whole_file(path) as temporary:
        temporary.write_text(experiment_to_toml(experiment), encoding="utf-8")


def _apply_override(values: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not all(part.strip() for part in key.split(".")):
        raise BoneageError(f"--set {override}: write section.key=value, as training.epochs=5")
    _assign(values, key, toml_or_text(text))


def toml_or_text(text: str) -> Any:
    """Parses a text as a TOML value; returns the text itself if it is not one, as in ``mae``."""
    try:
        return tomllib.loads(f"value = {text.strip()}")["value"]
    except tomllib.TOMLDecodeError:
        return text.strip()


def _assign(values: dict[str, Any], key: str, value: Any) -> None:
    *sections, name = (part.strip() for part in key.split("."))
    for section in sections:
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise BoneageError(f"{key}: {section} is a value, not a section")
    values[name] = value
