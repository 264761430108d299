"""Training in stages, each initialised with the weights of the previous one."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

from boneage_cli.core.bundle import build_network
from boneage_cli.core.config import Experiment
from boneage_cli.core.experiment_file import earlier_stages
from boneage_cli.errors import BoneageError, BoneageWarning
from boneage_cli.models.network import Network
from boneage_cli.models.pretrained import (
    Loaded,
    PretrainedError,
    load_pretrained,
    take_from_network,
)


def check_stages(experiment: Experiment, teacher: Path | None) -> None:
    """Checks before training that each stage can use the weights and teachers of earlier ones.

    Raises:
        BoneageError: An encoder does not fit, a teacher is not an earlier stage or predicts no
            ages, or ``training.anew`` is set without a teacher.
    """
    stages = [*earlier_stages(experiment), experiment]
    if teacher is None:
        for number, stage in enumerate(stages, 1):
            _check_teacher(stage, number, stages)
    learnt: Network | None = None
    for number, stage in enumerate(stages if experiment.stages else ()):
        # The scale of the ages does not affect tensor shapes.
        network = build_network(stage, 0, 1)
        if stage.training.anew:
            load_pretrained(network, stage.model.weights)
        elif learnt is not None:
            try:
                loaded = take_from_network(network, learnt.state_dict(), f"stage {number}")
            except PretrainedError as error:
                raise PretrainedError(
                    f"{error}; another one begins with training.anew = true, and a teacher"
                ) from None
            warn_of_untrained_parts(stage, loaded)
        learnt = network


def _check_teacher(stage: Experiment, number: int, stages: Sequence[Experiment]) -> None:
    teacher = stage.training.teacher
    if teacher >= number:
        raise BoneageError(
            f"{stage.name}: training.teacher = {teacher} must be the number of an earlier stage, "
            f"of which there {'is' if number == 2 else 'are'} {number - 1 or 'none'}; "
            f"{'name one of them, or 0' if number > 1 else 'set it to 0'}"
        )
    if teacher and not all("age" in each.model.targets for each in (stage, stages[teacher - 1])):
        raise BoneageError(f"{stage.name}: training.teacher is for ages; model.targets has none")
    if stage.training.anew and not teacher:
        raise BoneageError(
            f"{stage.name}: training.anew without a teacher leaves nothing of the stages before; "
            "name one in training.teacher, or train it by itself"
        )


def warn_of_untrained_parts(experiment: Experiment, loaded: Loaded) -> None:
    """Warns of parts of a network without initial weights, which no metric would reveal."""
    if loaded.untrained:
        warnings.warn(f"{experiment.name}: {loaded}", BoneageWarning, stacklevel=3)
