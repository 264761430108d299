"""A model's card: what it was made of, how well it does, and what it is not for."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from boneage_cli.core.bundle import Bundle
from boneage_cli.core.config import Experiment, earlier_stages
from boneage_cli.core.evaluation.metrics import TOLERANCES, Estimate
from boneage_cli.core.prediction.cases import REASONS
from boneage_cli.core.views import describe_shapes, shapes_of
from boneage_cli.errors import BoneageError

# A mean over fewer radiographs says nothing of its kind.
_LEAST_FOR_BIAS = 30


def model_card(bundle: Bundle, notes: Sequence[str] = ()) -> str:
    """The card of a bundle, as Markdown; all its figures are those that the bundle carries.

    Args:
        bundle: A model of age that was read from a file.
        notes: Known weaknesses, a sentence each.

    Raises:
        BoneageError: The bundle carries no figures, or is no file.
    """
    figures = bundle.metrics.get("validation")
    if figures is None or bundle.path is None:
        raise BoneageError(f"{bundle.path}: carries no validation figures to write a card of")
    return "\n".join(
        [
            *_what(bundle),
            *_figures(figures),
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
    members = [(each.experiment, each.provenance) for each in bundle.members]
    members = members or [(bundle.experiment, origin)]
    backbones = " and ".join(str(experiment.model.backbone) for experiment, _ in members)
    rows = {
        "file": f"`{bundle.path.name}`, {len(content) / 1e6:.1f} MB",
        "SHA-256": f"`{hashlib.sha256(content).hexdigest()}`",
        "network": f"{model.family}, {backbones}{', whose ages are averaged' * bool(members[1:])}, "
        f"{weights:,} weights, {'with' if model.gender else 'without'} sex; sees "
        f"{describe_shapes(shapes_of(bundle.experiment))} pixels",
        "hand": "registered by its key points"
        if bundle.experiment.regions.registered_hand
        else "as it lies in the radiograph",
        "data": f"{origin.get('data')}: {origin.get('train_images', 0):,} radiographs trained on, "
        f"{origin.get('validation_images', 0):,} held out ({origin.get('validation')})",
    }
    for experiment, made in members:
        of_which = f" of {experiment.name}" if members[1:] else ""
        rows |= {
            f"recipe{of_which}": _recipe(experiment, made),
            f"training{of_which}": f"{_hours(made.get('seconds'))} on {made.get('hardware')}",
        }
    rows["made"] = f"{str(origin.get('created'))[:10]}, {origin.get('software')}"
    yield from (f"| {name} | {text} |" for name, text in rows.items())
    yield ""


def _recipe(experiment: Experiment, origin: Mapping[str, Any]) -> str:
    training = experiment.training
    share = experiment.augmentation.share_degraded
    copies = f", {share:.0%} of the radiographs as worse copies" if share else ""
    own = origin.get("blend", 1.0)
    blend = f"; {own:.0%} of the weights, the others of the stage before" if own < 1 else ""
    teacher = f", {training.teacher_share:.0%} of the target the ages of stage {training.teacher}"
    taught = teacher if training.teacher else ""
    begun = "".join(
        f"; before that {stage.training.epochs} with {describe_shapes(shapes_of(stage))} pixels"
        + (f" ({stage.model.backbone})" * (stage.model.backbone != experiment.model.backbone))
        for stage in reversed(earlier_stages(experiment))
    )
    return (
        f"`configs/{experiment.name}.toml`; {training.epochs} epochs{copies}{taught}{begun}{blend};"
        f" batches of {training.batch_size}, {training.loss} loss, seed {training.seed}"
    )


def _figures(figures: Mapping[str, Any]) -> Iterator[str]:
    yield f"## Errors on {figures['images']:,} radiographs that it was not trained on"
    yield ""
    yield (
        "In months, with 95 % bootstrap intervals; predicting the mean age of the training "
        f"radiographs for everyone gives {figures['yardstick_mae']:.2f}. Which epoch to keep was "
        "chosen on the same radiographs, which flatters the figures a little."
    )
    yield ""
    yield from _table(
        ("", "images", "MAE (95 %)", "bias (95 %)", *(f"≤ {months}" for months in TOLERANCES)),
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
    yield "## 90 % intervals"
    yield ""
    yield (
        "How often they hold the known age of radiographs that they were not calibrated on (ten "
        "parts, each with intervals of the other nine). Bands are of the predicted age."
    )
    yield ""
    yield from _table(
        ("", "images", "held", "mean width, months"),
        (
            (group, f"{images:,}", f"{share:.1%}", f"{width:.1f}")
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
        f"Images that are no whole hand, or unlike all that it was trained on ({codes}). Of the "
        f"{figures['images']:,} radiographs above it refuses {count} "
        f"({count / figures['images']:.1%}); they are in the figures all the same. The limits of "
        "the last reason were set on the same radiographs."
    )
    yield ""


def _weaknesses(figures: Mapping[str, Any], notes: Sequence[str]) -> Iterator[str]:
    biases = []
    for name, group in {**figures["by_sex"], **figures["by_age"]}.items():
        bias = Estimate(**group["bias"])
        if group["images"] >= _LEAST_FOR_BIAS and (bias.low > 0 or bias.high < 0):
            way = "old" if bias.value > 0 else "young"
            biases.append(f"{name}: read {abs(bias.value):.1f} months too {way} on average.")
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
        "at two hospitals in the United States; elsewhere, other readers and other children "
        "differ: measure it on data of your own (`boneage evaluate`, `boneage recalibrate`)."
    )
    for line in ("terms", "citation"):
        if text := bundle.provenance.get(line):
            yield ""
            yield f"{line.capitalize()}: {text}"
    yield ""


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    yield from ("| " + " | ".join(row) + " |" for row in rows)
    yield ""


def _hours(seconds: float | None) -> str:
    if seconds is None:
        return "an unknown time"
    return f"{seconds / 3600:.1f} hours" if seconds >= 3600 else f"{seconds / 60:.0f} minutes"
