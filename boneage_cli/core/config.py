"""The settings of an experiment: their schema and defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat, field_validator, model_validator

from boneage_cli.core.runs import BUNDLE, FOLD, NO_RUN
from boneage_cli.imaging.preprocessing import Preprocessing
from boneage_cli.models.families import FAMILIES, resolve_family
from boneage_cli.models.losses import LOSSES, build_loss, options_of
from boneage_cli.models.names import Activation, AgeHead, Fusion, Normalisation, Pooling, Target
from boneage_cli.models.options import activations_of, dropout_rates, of_view
from boneage_cli.settings_section import Section

Share = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
# Widths of layers; no layers, or at least one.
Widths = tuple[Count, ...]
SomeWidths = Annotated[Widths, Field(min_length=1)]


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
        description="Initial weights: imagenet (pretrained), none (random), a run folder (its "
        "model) or a .safetensors file",
    )
    # A table has one value per view.
    channels: SomeWidths | dict[str, SomeWidths] = Field(
        (32, 64, 128), description="Number of channels of each block of small_cnn"
    )
    in_channels: Literal[1, 3] = Field(
        3, description="Input channels of the encoder; the grayscale image is repeated to fill them"
    )
    normalisation: Normalisation = Field(
        "auto",
        description="How gray values are normalised: auto (the backbone's own, or zscore if "
        "it has none), zscore (per image), half (to −1…1), imagenet (by ImageNet's mean and SD) "
        "or unit (to 0…1)",
    )
    pooling: Pooling = Field(
        "avg",
        description="How feature maps are pooled: avg (mean), gem (generalised mean, as in "
        "BoneXage), attention or attention_deep (weighted by a learnt spatial mask, as in "
        "the Keras system BoneAge) or flatten (every position kept)",
    )
    branch_hidden: Widths | dict[str, Widths] = Field(
        (),
        description="Widths of the dense layers of each view, before the views are joined; "
        "empty for none",
    )
    branch_activation: Activation | tuple[Activation, ...] = Field(
        "relu", description="Activation of the branch_hidden layers: one for all, or one per layer"
    )
    branch_dropout: Share | tuple[Share, ...] = Field(
        0.0,
        description="Dropout rate before each branch_hidden layer: one for all, or one per layer",
    )
    sex_fusion: Fusion = Field(
        "embedding",
        description="How sex is combined with the image features: none (only with gender = "
        "false), embedding or mlp (concatenation), gated (g · image + (1 − g) · sex, the image "
        "features projected to sex_features), cross_attention (sex is the query, image positions "
        "are keys and values) or cross_attention_gated (both)",
    )
    sex_features: Count | SomeWidths = Field(
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
    activation: Activation | tuple[Activation, ...] = Field(
        "relu", description="Activation of the hidden layers: one for all, or one per layer"
    )
    dropout: Share | tuple[Share, ...] = Field(
        0.2, description="Dropout rate before each hidden layer: one for all, or one per layer"
    )
    norm: bool = Field(False, description="Batch normalisation at the start of each hidden layer")
    head: AgeHead = Field(
        "linear",
        description="Output layer: linear, sigmoid (scaled to 0…max_age) or distribution "
        "(expectation of a softmax over months)",
    )
    max_age: float = Field(
        240, ge=1, description="Largest age that a sigmoid or distribution head can predict, months"
    )
    targets: tuple[Target, ...] = Field(
        ("age",), min_length=1, description="What the network predicts: age, sex, or both"
    )

    @field_validator("family")
    @classmethod
    def _known_family(cls, value: str) -> str:
        return resolve_family(value)

    @field_validator("weights")
    @classmethod
    def _known_weights(cls, value: str) -> str:
        if value in ("imagenet", "none"):
            return value
        # A run's settings name the file, so that they mean the same without the folder.
        path = _model_in(Path(value)) if Path(value).is_dir() else value
        if not str(path).endswith(".safetensors"):
            raise ValueError(
                "only imagenet, none, run folders and .safetensors files are taken; other formats "
                "may run code when they are read"
            )
        return str(path)

    @property
    def trains_with_sex(self) -> bool:
        """Whether the sex must be known in training, because it is an input or a target."""
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
        several = isinstance(self.sex_features, tuple) and len(self.sex_features) > 1
        if self.gender and self.sex_fusion == "embedding" and several:
            raise ValueError(f"an embedding has one width, not sex_features = {self.sex_features}")
        return self

    @model_validator(mode="after")
    def _fits_views_and_layers(self) -> ModelSettings:
        views = FAMILIES[self.family]
        for view in views:
            of_view(self.backbone, view, views, "backbone")
            of_view(self.channels, view, views, "channels")
            layers = of_view(self.branch_hidden, view, views, "branch_hidden")
            activations_of(layers, self.branch_activation)
            dropout_rates(layers, self.branch_dropout)
        activations_of(self.hidden, self.activation)
        dropout_rates(self.hidden, self.dropout)
        return self


def _model_in(folder: Path) -> Path:
    """Returns the model in a run folder; a ValueError says why there is none."""
    if folds := sorted(folder.glob(f"{FOLD}*/{BUNDLE}")):
        raise ValueError(
            f"{folder} is a cross-validation, with one model per fold; name one of them, such as "
            f"{folds[0].parent}"
        )
    if not (folder / BUNDLE).is_file():
        raise ValueError(f"no {BUNDLE} in {folder}; {NO_RUN}")
    return folder / BUNDLE


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
        "sex and age, the same ones whatever training.seed is; 0 for all",
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
