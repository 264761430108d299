"""A trained model as one ``.safetensors`` file.

Besides the weights it holds, as JSON in the file's metadata: the settings (network and
preprocessing, so that images are preprocessed identically in training and prediction), the scale of
the ages, calibration, metrics and provenance. Reading a bundle runs no code.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from boneage_cli import __version__
from boneage_cli.core.config import Experiment
from boneage_cli.core.conversion import Graph
from boneage_cli.core.experiment_file import parse_experiment
from boneage_cli.core.fingerprints import Fingerprints, all_of
from boneage_cli.core.intervals import Calibration
from boneage_cli.core.likeness import Likeness
from boneage_cli.core.runs import bundles_at
from boneage_cli.core.views import shapes_of, view_settings
from boneage_cli.core.weights_file import StoredWeights, read_weights, write_weights
from boneage_cli.errors import BoneageError
from boneage_cli.models.families import FAMILIES

if TYPE_CHECKING:
    from torch import Tensor

    from boneage_cli.models.average import AverageNetwork
    from boneage_cli.models.network import Network

BUNDLE_FORMAT = "boneage-bundle-1"
# Prefix, and name, of the tensors that are not weights of the network.
_LIKENESS, _TRAINED_ON = "likeness.", "trained_on"


@dataclass(frozen=True)
class Member:
    """A network of an ensemble, whose predictions a bundle averages.

    Attributes:
        experiment: The settings it was trained with.
        age_mean: Mean bone age of its training radiographs, months.
        age_std: Standard deviation of their bone ages, months.
        provenance: Its data set, software, hardware, date.
    """

    experiment: Experiment
    age_mean: float
    age_std: float
    provenance: dict[str, Any]


@dataclass(frozen=True)
class Bundle:
    """A trained network: its weights and everything needed to use and to judge it.

    Attributes:
        experiment: The settings it was trained with.
        age_mean: Mean bone age of the training radiographs, months.
        age_std: Standard deviation of their bone ages, months.
        weights: The state dict of the network.
        calibration: Half widths of prediction intervals; None if not measured.
        correction: By sex (``M`` or ``F``) the offset in months and the slope that recalibrate the
            network's ages for a site; empty if they are not corrected.
        likeness: The out-of-distribution detector; None if any image is accepted.
        metrics: Metrics measured when it was made, such as ``validation_mae`` in months.
        provenance: Data set, label version, software, date.
        trained_on: Fingerprints of the training radiographs; None if not known.
        members: The networks of an ensemble, which have the same views; empty for one network. The
            other attributes then describe the ensemble or its first network.
        path: The file it was read from.
    """

    experiment: Experiment
    age_mean: float
    age_std: float
    weights: Mapping[str, Tensor]
    calibration: Calibration | None = None
    correction: dict[str, tuple[float, float]] = field(default_factory=dict)
    likeness: Likeness | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    trained_on: Fingerprints | None = None
    members: tuple[Member, ...] = ()
    path: Path | None = None

    @property
    def networks(self) -> tuple[Member, ...]:
        """The networks whose predictions are averaged, or the only one."""
        only = Member(self.experiment, self.age_mean, self.age_std, self.provenance)
        return self.members or (only,)

    @property
    def needs_sex(self) -> bool:
        """Whether prediction requires the child's sex."""
        return self.experiment.model.gender or bool(self.correction)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the graph's outputs, in order: months, male_probability, or both."""
        targets = self.experiment.model.targets
        names = {"age": "months", "sex": "male_probability"}
        return tuple(name for target, name in names.items() if target in targets)

    def network(self) -> Network | AverageNetwork:
        """Returns the network with its weights, in evaluation mode."""
        network = self._untrained()
        try:
            network.load_state_dict(dict(self.weights))
        except RuntimeError as error:
            first_line = str(error).splitlines()[0]
            raise BoneageError(
                f"{self.path}: the weights do not fit the network of its settings ({first_line}); "
                "train again with this version"
            ) from None
        return network.eval()

    def _untrained(self) -> Network | AverageNetwork:
        networks = [
            build_network(each.experiment, each.age_mean, each.age_std) for each in self.networks
        ]
        if not self.members:
            return networks[0]
        from boneage_cli.models.average import AverageNetwork

        return AverageNetwork(networks)

    def graph(self, *, with_features: bool = True) -> Graph:
        """Returns the network in the form that all backends run, see ``AnswerGraph``.

        Args:
            with_features: Whether the features for ``Likeness`` are an output, too.
        """
        experiment = self.experiment

        def make() -> Any:
            from boneage_cli.core.graphs import AnswerGraph

            return AnswerGraph(
                self.network(),
                self.correction,
                takes_sex=experiment.model.gender,
                needs_sex=self.needs_sex,
                with_features=with_features,
            ).eval()

        names = FAMILIES[experiment.model.family]
        shapes = shapes_of(experiment)
        inputs: dict[str, tuple[tuple[int, ...], type[np.generic]]] = {
            name: ((1, *shapes[name]), np.uint8) for name in names
        }
        if self.needs_sex:
            inputs["male"] = ((), np.float32)
        key = None
        if isinstance(self.weights, StoredWeights):
            model, scale = experiment.model.model_dump_json(), (self.age_mean, self.age_std)
            made_of = [self.weights.digest, model, scale, shapes, self.correction, with_features]
            made_of += [
                (each.experiment.model.model_dump_json(), each.age_mean, each.age_std)
                for each in self.members
            ]
            key = json.dumps(made_of)
        outputs = (*self.outputs, "features") if with_features else self.outputs
        return Graph(make, inputs, outputs, key)


def load_as_one(path: Path) -> Bundle:
    """Reads a path as one model: the models of a cross-validation are averaged.

    Args:
        path: A bundle, or the folder of a run or of a cross-validation.

    Raises:
        BoneageError: A bundle cannot be read, or the bundles cannot be averaged.
    """
    bundles = [load_bundle(file) for file in bundles_at(path)]
    return bundles[0] if len(bundles) == 1 else averaged(bundles)


def averaged(bundles: Sequence[Bundle]) -> Bundle:
    """Returns a bundle that averages the predictions of several models.

    Its metrics are empty until they are measured. The calibration of intervals is kept only if all
    models have the same, as those of a cross-validation do.

    Args:
        bundles: The models; the first gives name, views and out-of-distribution limits.

    Raises:
        BoneageError: Their inputs or outputs differ, or one of them was recalibrated or is itself
            an average.
    """
    from boneage_cli.models.average import weights_of_all

    first = bundles[0]
    for bundle in bundles:
        if bundle.members or bundle.correction:
            raise BoneageError(
                f"{bundle.path}: is itself an average or was recalibrated; name the original models"
            )
        if bundle.outputs != first.outputs:
            raise BoneageError(
                f"{bundle.path}: does not predict what {first.path} predicts (model.targets); name "
                "one of them"
            )
        if _seen(bundle) != _seen(first):
            raise BoneageError(
                f"{bundle.path}: does not see what {first.path} sees (views, preprocessing, "
                "regions, sex); such models are averaged by naming both with --model"
            )
    return replace(
        first,
        weights=weights_of_all([bundle.weights for bundle in bundles]),
        members=tuple(network for bundle in bundles for network in bundle.networks),
        calibration=first.calibration
        if all(bundle.calibration == first.calibration for bundle in bundles)
        else None,
        metrics={},
        trained_on=all_of([bundle.trained_on for bundle in bundles]),
        # save_bundle fills in the date and the software.
        provenance={
            name: value
            for name, value in first.provenance.items()
            if name not in ("created", "software")
        },
        path=None,
    )


def _seen(bundle: Bundle) -> tuple[object, ...]:
    experiment = bundle.experiment
    return view_settings(experiment), experiment.model.gender, experiment.data.sex


def build_network(experiment: Experiment, age_mean: float, age_std: float) -> Network:
    """Builds the untrained network that settings describe.

    Args:
        experiment: The settings.
        age_mean: Mean bone age of the training radiographs, months.
        age_std: Standard deviation of their bone ages, months.

    Raises:
        BoneageError: The settings name parts that do not exist or do not fit together.
    """
    model = experiment.model
    from boneage_cli.models.network import Network

    views = FAMILIES[model.family]
    arguments = model.model_dump(exclude={"family", "gender", "weights", "sex_fusion"})
    try:
        return Network(
            views,
            input_size=shapes_of(experiment),
            sex_fusion=model.sex_fusion if model.gender else "none",
            age_mean=age_mean,
            age_std=age_std,
            **arguments,
        )
    except ValueError as error:
        raise BoneageError(f"model: {error}") from None


def save_bundle(bundle: Bundle, path: Path, *, half: bool = False) -> None:
    """Writes a bundle atomically.

    Args:
        bundle: The bundle.
        path: The file.
        half: Whether weights are stored as 16-bit floats, in half the space.
    """
    header = {
        "format": BUNDLE_FORMAT,
        "experiment": bundle.experiment.model_dump(mode="json"),
        "age_mean": bundle.age_mean,
        "age_std": bundle.age_std,
        "calibration": bundle.calibration.to_dict() if bundle.calibration else None,
        "correction": bundle.correction,
        "likeness": bundle.likeness.to_dict() if bundle.likeness else None,
        "metrics": bundle.metrics,
        "provenance": {
            "software": f"boneage {__version__}",
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            **bundle.provenance,
        },
        "members": [
            {
                "experiment": each.experiment.model_dump(mode="json"),
                "age_mean": each.age_mean,
                "age_std": each.age_std,
                "provenance": each.provenance,
            }
            for each in bundle.members
        ],
    }
    from torch import from_numpy

    arrays = bundle.likeness.arrays() if bundle.likeness else {}
    beside: dict[str, np.ndarray] = {_LIKENESS + name: each for name, each in arrays.items()}
    if bundle.trained_on is not None:
        beside[_TRAINED_ON] = bundle.trained_on
    tensors = {name: from_numpy(each) for name, each in beside.items()}
    write_weights(header, dict(bundle.weights) | tensors, path, half=half)


def load_bundle(path: Path) -> Bundle:
    """Reads a bundle.

    Raises:
        BoneageError: The file is missing, or not a bundle that this version can read.
    """
    path = Path(path)
    header, weights, beside = read_weights(
        path, "model bundle", BUNDLE_FORMAT, "boneage train", beside=(_LIKENESS, _TRAINED_ON)
    )
    provenance = header.get("provenance")
    writer = provenance.get("software") if isinstance(provenance, dict) else None
    source = f"{path} (written by {writer or 'an unknown version'})"
    try:
        return _bundle_of(header, weights, beside, path, source)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise BoneageError(
            f"{source}: boneage {__version__} does not understand its header "
            f"({type(error).__name__}: {error}); use the version that wrote it, or train again"
        ) from None


def trained_on_in(path: Path) -> Fingerprints | None:
    """Returns the fingerprints of the radiographs that a file's weights were trained on.

    Args:
        path: A bundle; of another model's weights, or a file that is gone, nothing is known.
    """
    with suppress(BoneageError):
        return load_bundle(path).trained_on
    return None


def _bundle_of(
    header: Mapping[str, Any],
    weights: StoredWeights,
    beside: Mapping[str, np.ndarray],
    path: Path,
    source: str,
) -> Bundle:
    calibration, likeness = header["calibration"], header["likeness"]
    return Bundle(
        experiment=parse_experiment(header["experiment"], source),
        age_mean=header["age_mean"],
        age_std=header["age_std"],
        weights=weights,
        calibration=Calibration.from_dict(calibration) if calibration else None,
        correction={sex: (a, b) for sex, (a, b) in header["correction"].items()},
        likeness=Likeness.from_parts(
            likeness,
            {
                name.removeprefix(_LIKENESS): array
                for name, array in beside.items()
                if name.startswith(_LIKENESS)
            },
        )
        if likeness
        else None,
        metrics=header["metrics"],
        provenance=header["provenance"],
        trained_on=beside.get(_TRAINED_ON),
        members=tuple(
            Member(
                parse_experiment(each["experiment"], source),
                each["age_mean"],
                each["age_std"],
                each["provenance"],
            )
            for each in header["members"]
        ),
        path=path,
    )
