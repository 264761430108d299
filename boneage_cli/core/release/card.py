"""The model card: training, metrics, known weaknesses and intended use of a model."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from boneage_cli.core.bundle import Bundle
from boneage_cli.core.config import Experiment
from boneage_cli.core.evaluation.metrics import TOLERANCES, Estimate
from boneage_cli.core.experiment_file import earlier_stages
from boneage_cli.core.prediction.cases import REASONS
from boneage_cli.core.views import describe_shapes, shapes_of
from boneage_cli.errors import BoneageError
from boneage_cli.wording import counted

# Least number of radiographs in a group for its bias to be reported.
_LEAST_FOR_BIAS = 30


def model_card(bundle: Bundle, notes: Sequence[str] = ()) -> str:
    """Returns a bundle's model card as Markdown, with the metrics stored in the bundle.

    Args:
        bundle: A model that predicts age and was read from a file.
        notes: Known weaknesses, a sentence each.

    Raises:
        BoneageError: The bundle has no metrics, or was not read from a file.
    """
    figures = bundle.metrics.get("validation")
    if figures is None or bundle.path is None:
        raise BoneageError(f"{bundle.path}: carries no validation figures to write a card of")
    return "\n".join(
        [
            *_what(bundle),
            *_training(bundle),
            *_figures(figures, bundle.experiment.training.keep),
            *_coverage(bundle),
            *_refusals(bundle, figures),
            *_weaknesses(figures, notes),
            *_use(bundle),
        ]
    )


def _what(bundle: Bundle) -> Iterator[str]:
    assert bundle.path is not None
    model, origin = bundle.experiment.model, bundle.provenance
    weights = sum(weight.numel() for weight in bundle.network().parameters())
    content = bundle.path.read_bytes()
    yield f"# Model card: {bundle.experiment.name}"
    yield ""
    yield (
        "Bone age in months from a radiograph of the left hand. **For research, not a medical "
        "device.**"
    )
    yield ""
    yield "| | |"
    yield "|---|---|"
    several = len(bundle.networks) > 1
    backbones = " and ".join(str(each.experiment.model.backbone) for each in bundle.networks)
    rows = {
        "file": f"`{bundle.path.name}`, {len(content) / 1e6:.1f} MB",
        "SHA-256": f"`{hashlib.sha256(content).hexdigest()}`",
        "network": f"{model.family}, {backbones}{', whose ages are averaged' * several}, "
        f"{weights:,} weights; sex is {'' if model.gender else 'not '}an input; input size "
        f"{describe_shapes(shapes_of(bundle.experiment))} pixels (height × width)",
        "hand": "registered to one pose by its key points"
        if bundle.experiment.regions.registered_hand
        else "not registered",
        "data": f"{origin.get('data')}: {origin.get('train_images', 0):,} radiographs for "
        f"training, {origin.get('validation_images', 0):,} held out ({origin.get('validation')})",
    }
    for network in bundle.networks:
        name, training = network.experiment.name, network.experiment.training
        made = network.provenance
        of_which = f" of {name}" if several else ""
        rows |= {
            f"recipe{of_which}": f"`configs/{name}.toml`; batches of "
            f"{training.batch_size}, {training.loss} loss, seed {training.seed}",
            f"training time{of_which}": f"{_hours(made.get('seconds'))} on {made.get('hardware')}",
        }
    rows["made"] = f"{str(origin.get('created'))[:10]}, {origin.get('software')}"
    yield from (f"| {name} | {text} |" for name, text in rows.items())
    yield ""


def _training(bundle: Bundle) -> Iterator[str]:
    for network in bundle.networks:
        experiment, made = network.experiment, network.provenance
        yield f"## Training{f' of {experiment.name}' if bundle.networks[1:] else ''}"
        yield ""
        stages = [*earlier_stages(experiment), experiment]
        for number, stage in enumerate(stages, 1):
            name = f"Stage {number}: " if stages[1:] else ""
            yield f"- {name}{_stage(stage, experiment)}"
        yield ""
        own = made.get("blend", 1.0)
        if own < 1:
            yield (
                f"The weights are the average of those after the last stage ({own:.0%}) and after "
                f"the one before it ({1 - own:.0%})."
            )
            yield ""


def _stage(stage: Experiment, last: Experiment) -> str:
    training, share = stage.training, stage.augmentation.share_degraded
    epochs = counted(training.epochs, "epoch")
    parts = [f"{epochs} on images of {describe_shapes(shapes_of(stage))} pixels"]
    if stage.model.backbone != last.model.backbone:
        parts.append(f"backbone {stage.model.backbone}")
    if share:
        parts.append(f"{share:.0%} of the radiographs as degraded copies")
    if training.teacher:
        target = f"{training.teacher_share:.0%} of the target"
        parts.append(f"ages predicted by stage {training.teacher} as {target}")
    return ", ".join(parts)


def _figures(figures: Mapping[str, Any], keep: str) -> Iterator[str]:
    yield f"## Errors on {figures['images']:,} held-out radiographs, by sex and known bone age"
    yield ""
    yield (
        "In months, with 95 % bootstrap intervals. Age bands are of the known bone age. As a "
        "baseline, predicting the mean age of the training radiographs for everyone has an MAE of "
        f"{figures['baseline_mae']:.2f}."
        + (
            " The epoch to keep, and perhaps parts of the recipe, were chosen on the same "
            "radiographs, which makes the figures optimistic."
            if keep == "best"
            else ""
        )
    )
    yield ""
    yield from _table(
        (
            "known age",
            "images",
            "MAE (95 %)",
            "bias (95 %)",
            *(f"errors ≤ {months}" for months in TOLERANCES),
        ),
        (
            (
                name,
                f"{group['images']:,}",
                str(Estimate(**group["mae"])),
                str(Estimate(**group["bias"])),
                *(f"{group[f'within_{months}_months']:.1%}" for months in TOLERANCES),
            )
            for name, group in {
                "all": figures,
                **figures["by_sex"],
                **figures["by_age"],
            }.items()
        ),
    )


def _coverage(bundle: Bundle) -> Iterator[str]:
    coverage = bundle.metrics.get("coverage_90")
    if not coverage:
        return
    yield "## 90 % prediction intervals, by sex and predicted bone age"
    yield ""
    yield (
        "Coverage is the share of radiographs whose interval contains the known age, estimated by "
        "ten-fold cross-validation: intervals are calibrated on nine parts and checked on the "
        "tenth. Age bands are of the predicted bone age."
    )
    yield ""
    yield from _table(
        ("predicted age", "images", "coverage", "mean width, months"),
        (
            (_group(group), f"{images:,}", f"{share:.1%}", f"{width:.1f}")
            for group, (images, share, width) in coverage.items()
        ),
    )


def _refusals(bundle: Bundle, figures: Mapping[str, Any]) -> Iterator[str]:
    refused = figures.get("refused")
    if bundle.likeness is None or refused is None:
        return
    count = sum(refused.values())
    yield "## What it refuses"
    yield ""
    codes = "; ".join(f"`{code}`: {text}" for code, text in REASONS.items())
    yield (
        "Images that do not show one whole hand, or that are unlike all training radiographs "
        f"({codes}). Of the {figures['images']:,} radiographs above, it refuses {count} "
        f"({count / figures['images']:.1%}); the figures include them. The limit of the last "
        "criterion was set on the same radiographs."
    )
    yield ""


def _weaknesses(figures: Mapping[str, Any], notes: Sequence[str]) -> Iterator[str]:
    biases = []
    bands = {f"Known age {name}": group for name, group in figures["by_age"].items()}
    sexes = {name.capitalize(): group for name, group in figures["by_sex"].items()}
    for name, group in (sexes | bands).items():
        bias = Estimate(**group["bias"])
        if group["images"] >= _LEAST_FOR_BIAS and (bias.low > 0 or bias.high < 0):
            way = "old" if bias.value > 0 else "young"
            biases.append(f"{name}: predicted {abs(bias.value):.1f} months too {way} on average.")
    if not biases and not notes:
        return
    yield "## Known weaknesses"
    yield ""
    yield from (f"- {note}" for note in (*biases, *notes))
    yield ""


def _use(bundle: Bundle) -> Iterator[str]:
    yield "## Use"
    yield ""
    yield (
        "Research only. It has no regulatory approval, and its output must not be used for the "
        "diagnosis or treatment of a person. The labels are readings by the Greulich-Pyle atlas "
        "at two hospitals in the United States; readers and children elsewhere may differ: "
        "evaluate it on your own data (`boneage evaluate`, `boneage recalibrate`)."
    )
    terms = bundle.provenance.get("terms") or ""
    if "RSNA" in terms:
        yield ""
        yield (
            "Licence of the weights: they were trained on RSNA data, whose terms allow research "
            "and non-commercial use only and forbid redistribution of the images. Use the weights "
            "for research only."
        )
    for heading, line in (("Terms of the data", "terms"), ("Citation", "citation")):
        if text := bundle.provenance.get(line):
            yield ""
            yield f"{heading}: {text}"
    yield ""


def _group(name: str) -> str:
    """Returns the name of a group in words: ``girls, 5–10 years`` for ``F 5–10 years``."""
    sex, _, band = name.partition(" ")
    words = {"F": "girls", "M": "boys"}.get(sex)
    return name if words is None else f"{words}, {band}" if band else words


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    yield from ("| " + " | ".join(row) + " |" for row in rows)
    yield ""


def _hours(seconds: float | None) -> str:
    if seconds is None:
        return "an unknown time"
    return f"{seconds / 3600:.1f} hours" if seconds >= 3600 else f"{seconds / 60:.0f} minutes"
