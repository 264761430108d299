"""The settings of an experiment: their schema, their TOML form, defaults and overrides."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
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
from boneage_cli.errors import BoneageError
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

    family: str = Field("global", description="global, roi or fusion: which views the model sees")
    gender: bool = Field(True, description="whether the child's sex is an input")
    backbone: str | dict[str, str] = Field(
        "tf_efficientnet_lite0", description="a timm model by name, small_cnn or m46"
    )
    weights: str = Field(
        "imagenet", description="to begin with: imagenet, none, or a .safetensors file"
    )
    channels: Widths | PerView = Field((32, 64, 128), description="of the blocks of small_cnn")
    in_channels: Literal[1, 3] = Field(3, description="channels that the gray image is repeated to")
    normalisation: str = Field(
        "auto", description="of gray values: auto (the backbone's), zscore, half, imagenet, unit"
    )
    pooling: str = Field(
        "avg",
        description="how positions become features: avg, gem (S3), attention, attention_deep (S2) "
        "or flatten",
    )
    branch_hidden: Widths | PerView = Field((), description="dense layers of each view")
    branch_activation: str | tuple[str, ...] = Field("relu", description="of those layers")
    branch_dropout: float | tuple[float, ...] = Field(0.0, description="before each of them")
    sex_fusion: str = Field(
        "embedding",
        description="how sex joins the image's features: embedding or mlp (beside them), gated "
        "(g · image + (1 - g) · sex, both of as many features as sex has), cross_attention (sex "
        "asks, positions answer) or cross_attention_gated",
    )
    sex_features: int | Widths = Field(
        8,
        description="how many features sex has, or the widths of the layers that make them",
    )
    sex_norm: bool = Field(False, description="whether those layers are batch-normalised")
    sex_dropout: float = Field(0.0, ge=0, lt=1, description="after those layers")
    attention_heads: int = Field(4, ge=1, description="of the cross-attention")
    hidden: Widths = Field((128,), description="dense layers before the head")
    activation: str | tuple[str, ...] = Field(
        "relu", description="of the dense layers: relu, tanh, swish, mish, elu or gelu"
    )
    dropout: float | tuple[float, ...] = Field(0.2, description="before each dense layer")
    norm: bool = Field(False, description="whether each dense layer begins with batch norm")
    head: str = Field(
        "linear",
        description="linear, sigmoid (from 0 to max_age) or distribution (expectation over months)",
    )
    max_age: float = Field(240, ge=1, description="largest age of a bounded head, months")
    targets: tuple[Literal["age", "sex"], ...] = Field(
        ("age",), min_length=1, description="what is predicted: age, sex, or both at once"
    )

    @field_validator("family")
    @classmethod
    def _known_family(cls, value: str) -> str:
        return resolve_family(value)

    @property
    def needs_sex(self) -> bool:
        """Whether a child of unknown sex is of no use: sex is an input or a target."""
        return self.gender or "sex" in self.targets

    @model_validator(mode="after")
    def _sex_is_input_or_target(self) -> ModelSettings:
        if self.gender and "sex" in self.targets:
            raise ValueError("sex cannot be input and target at once; set gender = false")
        if self.gender and self.sex_fusion == "none":
            raise ValueError("sex_fusion = 'none' leaves the sex out; set gender = false instead")
        return self


class DataSettings(Section):
    """Which radiographs of a data set are trained on."""

    sex: Literal["both", "F", "M"] = Field(
        "both", description="train and validate on girls (F) or boys (M) alone, as S4 does"
    )
    train_images: int = Field(
        0,
        ge=0,
        description="train on so many radiographs, stratified by sex and age; 0 for all",
    )


class RegionSettings(Section):
    """The carpal and metacarpal regions of the roi and fusion families, and registration."""

    height: int = Field(192, ge=32, le=2048, description="of a region's image, pixels")
    width: int = Field(192, ge=32, le=2048, description="of a region's image, pixels")
    registered_hand: bool = Field(
        False, description="whether the whole hand is turned to one pose and cut out, as in S4"
    )
    background_removed: bool = Field(False, description="whether all but the hand becomes black")


class AugmentationSettings(Section):
    """Random changes of a training batch; a range of one number is symmetric about no change."""

    enabled: bool = Field(True, description="whether images are changed at all")
    flip: float = Field(0.5, ge=0, le=1, description="probability of a horizontal flip")
    rotate: float = Field(15, ge=0, le=180, description="largest rotation, degrees")
    translate: float = Field(0.05, ge=0, lt=1, description="largest shift, fraction of the side")
    scale: Annotated[float, Field(ge=0, lt=1)] | tuple[PositiveFloat, PositiveFloat] = Field(
        0.15, description="largest change of size, fraction; or its two ends as factors: [0.9, 1]"
    )
    aspect: float = Field(
        0, ge=0, lt=1, description="largest change of height against width, fraction"
    )
    shear: float = Field(0, ge=0, lt=90, description="largest shear, degrees")
    brightness: float = Field(0.1, ge=0, lt=1, description="largest shift, fraction of full white")
    contrast: float = Field(0.2, ge=0, lt=1, description="largest change of contrast, fraction")
    gamma: float = Field(0.2, ge=0, lt=1, description="largest change of gamma, fraction")
    blur: float = Field(
        0, ge=0, le=10, description="largest blur of every second image, pixels of a Gaussian"
    )
    noise: float = Field(
        0, ge=0, lt=1, description="largest noise, fraction of full white; little is likelier"
    )
    degraded: float = Field(
        0,
        ge=0,
        le=1,
        description="share of radiographs that an epoch shows as worse copies of their files: "
        "dark, faded, blurred, small, noisy, compressed",
    )

    @model_validator(mode="after")
    def _ordered(self) -> AugmentationSettings:
        low, high = self.scale_range
        if low > high:
            raise ValueError(f"scale = [{low:g}, {high:g}] is not from a smaller to a larger size")
        return self

    @property
    def share_degraded(self) -> float:
        """The share of radiographs that are shown as worse copies; none where nothing changes."""
        return self.degraded if self.enabled else 0.0

    @property
    def scale_range(self) -> tuple[float, float]:
        """The smallest and the largest factor of size."""
        if isinstance(self.scale, tuple):
            return self.scale
        return 1 - self.scale, 1 + self.scale


CYCLICAL = ("triangular", "triangular2", "exp_range")
"""The schedules that go between two rates, again and again."""


class TrainingSettings(Section):
    """The optimisation."""

    epochs: int = Field(20, ge=1, description="passes over the training radiographs")
    batch_size: int = Field(32, ge=1, description="radiographs per step and device")
    optimiser: Literal["adam", "adamw", "sgd"] = Field(
        "adamw", description="betas are those of adam and adamw; sgd has momentum"
    )
    learning_rate: float = Field(1e-3, gt=0, description="the largest of the schedule")
    weight_decay: float = Field(1e-2, ge=0, description="of kernels and matrices alone")
    betas: tuple[Share, Share] = Field(
        (0.9, 0.999), description="of Adam; the first is sgd's momentum"
    )
    schedule: Literal["constant", "plateau", "cosine", "triangular", "triangular2", "exp_range"] = (
        Field("cosine", description="of the learning rate; the last three are cyclical")
    )
    warmup_epochs: float = Field(1, ge=0, description="epochs of linear warm-up of cosine")
    final_rate: float = Field(
        0.01, ge=0, le=1, description="where cosine ends, fraction of the learning rate"
    )
    cyclic_base: float = Field(1e-4, gt=0, description="lowest rate of the cyclical schedules")
    cyclic_steps: int = Field(2000, ge=1, description="optimiser steps of half a cycle")
    cyclic_gamma: float = Field(0.99994, gt=0, le=1, description="exp_range's factor per step")
    plateau_factor: float = Field(0.2, gt=0, lt=1, description="by which plateau lowers the rate")
    plateau_patience: int = Field(3, ge=0, description="epochs without a better figure")
    plateau_monitor: Literal["mae", "loss"] = Field(
        "mae",
        description="the validation figure that plateau watches; mae stands for the share of "
        "errors where sex is the only target",
    )
    minimum_rate: float = Field(1e-6, ge=0, description="below which plateau does not go")
    loss: str = Field("mae", description=", ".join(LOSSES))
    loss_options: dict[str, float] = Field(
        default_factory=dict,
        description="such as {delta = 10} months for huber; known are scale (months per unit of "
        "the loss), "
        + ", ".join(
            f"{', '.join(options_of(name))} of {name}" for name in LOSSES if options_of(name)
        ),
    )
    gradient_clip: float = Field(1.0, ge=0, description="largest gradient norm; 0 for no limit")
    accumulate: int = Field(1, ge=1, description="batches per optimiser step")
    ema: float = Field(0, ge=0, lt=1, description="decay of the averaged weights; 0 for none")
    norm_images: int = Field(
        1024,
        ge=0,
        description="training images on which batch normalisation is measured anew before each "
        "validation; 0 to keep the running averages",
    )
    patience: int = Field(
        0, ge=0, description="stop after so many epochs without a better validation MAE; 0 never"
    )
    frozen_epochs: int = Field(0, ge=0, description="epochs in which the encoder is frozen")
    fine_tune_rate: float = Field(
        1.0, gt=0, description="the encoder's learning rate, fraction of learning_rate"
    )
    head_fine_tune_rate: float = Field(
        1.0, gt=0, description="the same of all other layers, once the frozen epochs are over"
    )
    teacher: int = Field(
        0,
        ge=0,
        description="the stage whose ages are a part of the target, by its number; 0 for none",
    )
    teacher_share: float = Field(0.5, gt=0, le=1, description="the teacher's part of the target")
    anew: bool = Field(
        False,
        description="with a teacher: begin with model.weights, which may be of another backbone "
        "than the stage before, and not with what that has learnt",
    )
    mixup: float = Field(0, ge=0, description="alpha of mixup's Beta distribution; 0 for none")
    label_noise: float = Field(0, ge=0, description="standard deviation of label noise, months")
    precision: Literal["auto", "32", "bf16", "fp16"] = Field(
        "auto", description="auto: bf16 or fp16 on a GPU, bf16 on CPUs that have it, 32 elsewhere"
    )
    keep: Literal["best", "last"] = Field(
        "best",
        description="the epoch whose model is kept; the best on the validation radiographs does a "
        "little better on them than on others, the last does not",
    )
    keep_every: int = Field(
        0, ge=0, description="keep the model of every so many epochs, too; 0 for none"
    )
    log_every: int = Field(
        0, ge=0, description="batches between rows of batches.csv; 0 for no such file"
    )
    deterministic: bool = Field(False, description="refuse operations that are not repeatable")
    compile: bool = Field(False, description="torch.compile the network")
    seed: int = Field(42, ge=0, description="of weights, order, augmentation and folds")

    @field_validator("precision", mode="before")
    @classmethod
    def _number_or_text(cls, value: object) -> object:
        return str(value) if isinstance(value, int) else value

    @model_validator(mode="after")
    def _consistent(self) -> TrainingSettings:
        # Its ValueError names what is wrong with the loss or its options.
        build_loss(self.loss, **self.loss_options)
        # As many as there are train the head alone.
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

    name: str = Field("global", pattern=r"^[A-Za-z0-9._-]+$", description="the run folder's name")
    data: DataSettings = Field(default_factory=DataSettings)
    preprocessing: Preprocessing = Field(default_factory=Preprocessing)
    model: ModelSettings = Field(default_factory=ModelSettings)
    regions: RegionSettings = Field(default_factory=RegionSettings)
    augmentation: AugmentationSettings = Field(default_factory=AugmentationSettings)
    training: TrainingSettings = Field(default_factory=TrainingSettings)
    stages: tuple[dict[str, Any], ...] = Field(
        (),
        description="trainings that come before, each with the weights of the one before it: of "
        "each what differs from the settings above (but teacher and anew are each training's own)",
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
    tell: Callable[[str], None] = lambda note: None,
) -> Experiment:
    """Reads settings from a TOML file, then applies flags, then ``section.key=value`` overrides.

    Args:
        path: The settings file, or one of S1's YAML files; None for the defaults.
        flags: Values by dotted key, such as ``model.gender``; None leaves a setting as it is.
        overrides: Such as ``training.epochs=5``; the value is read as TOML, else as text.
        tell: Called with a sentence for each key of a YAML file that has no meaning here.

    Raises:
        BoneageError: The file cannot be read, a key is unknown (the nearest known one is named),
            or a value is refused (the reason is given).
    """
    values: dict[str, Any] = {}
    if path is not None and Path(path).suffix.lower() in (".yaml", ".yml"):
        from boneage_cli.core.yaml_settings import experiment_values_from_s1_yaml

        # The layers that S1's file gives depend on the family, which it does not name.
        family = (flags or {}).get("model.family")
        for override in overrides:
            key, _, value = override.partition("=")
            family = value.strip() if key.strip() == "model.family" else family
        values, notes = experiment_values_from_s1_yaml(Path(path), family)
        for note in notes:
            tell(note)
    elif path is not None:
        try:
            values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise BoneageError(f"{path}: cannot be read ({error.strerror}); see configs/") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise BoneageError(f"{path}: not a TOML file: {error}") from None
    loss = _loss_of(values)
    chosen = {key: value for key, value in (flags or {}).items() if value is not None}
    for key, value in chosen.items():
        _assign(values, key, value)
    for override in overrides:
        _apply_override(values, override)
    given = [*(f"{key}={value}" for key, value in chosen.items()), *overrides]
    if _loss_of(values) != loss and not any("loss_options" in each for each in given):
        _leave_options_of(loss, values, tell)
    file = str(path) if path else "settings"
    # The mistake may be in the file or in what is given beside it.
    return parse_experiment(values, f"{file} with {', '.join(given)}" if given else file)


def _loss_of(values: Mapping[str, Any]) -> Any:
    training = values.get("training")
    return training.get("loss", "mae") if isinstance(training, Mapping) else "mae"


def _leave_options_of(loss: Any, values: dict[str, Any], tell: Callable[[str], None]) -> None:
    """Another loss than the file's takes over its scale, and no options that it does not have."""
    training = values["training"]
    options = training.get("loss_options")
    if not isinstance(options, Mapping):
        return
    known = ("scale", *options_of(str(training["loss"])))
    kept = {name: value for name, value in options.items() if name in known}
    if left := sorted(options.keys() - kept.keys()):
        training["loss_options"] = kept
        tell(f"training.loss_options: {', '.join(left)} of the file's loss {loss} left out")


def parse_experiment(values: Mapping[str, Any], source: str) -> Experiment:
    """Checks settings against the schema.

    Args:
        values: Nested tables, as TOML gives them.
        source: The file's name, for messages.

    Raises:
        BoneageError: Says which key or value is wrong, and why.
    """
    try:
        experiment = Experiment.model_validate(values)
    except ValidationError as error:
        raise BoneageError(f"{source}: " + "; ".join(explain(error, Experiment))) from None
    earlier_stages(experiment, source)
    return experiment


def earlier_stages(experiment: Experiment, source: str = "settings") -> list[Experiment]:
    """The trainings that come before an experiment's own, in order, see ``Experiment.stages``.

    Args:
        experiment: The experiment.
        source: The file's name, for messages.

    Raises:
        BoneageError: Says what is wrong with which stage.
    """
    stages = []
    for number, changes in enumerate(experiment.stages, 1):
        values = experiment.model_dump(mode="json", exclude={"stages"})
        values["name"] = f"{experiment.name}-stage-{number}"
        # The last training's teacher would often come after this stage.
        values["training"] |= {"teacher": 0, "anew": False}
        for key, change in changes.items():
            # A section's settings one by one, and each as a whole, tables too.
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
    """What decides which radiographs a fold holds out."""
    return experiment.training.seed, experiment.data.sex, experiment.model.needs_sex


def experiment_to_toml(experiment: Experiment) -> str:
    """The settings as a TOML document that ``load_experiment`` reads back to the same settings."""
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
    """The value that a text is in TOML; where it is none, the text itself, as in ``mae``."""
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
