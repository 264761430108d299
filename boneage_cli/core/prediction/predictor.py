"""Prediction with one or several models; shared by validation, evaluate and predict."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from types import NoneType
from typing import NamedTuple

import numpy as np

from boneage_cli.batching import as_they_come, batched
from boneage_cli.core.bundle import Bundle, load_bundle
from boneage_cli.core.hardware import choose_device, choose_precision, cpu_has_bf16
from boneage_cli.core.intervals import LEAST_TO_CALIBRATE, check_level
from boneage_cli.core.mixed_precision import MIXED_PRECISION
from boneage_cli.core.prediction.cases import NO_NUMBER, REASONS, Asked, Case, Prediction
from boneage_cli.core.prediction.preparing import SEX_UNKNOWN, Pixels, Prepared, Preparer
from boneage_cli.core.prediction.tta import AS_IT_IS, tta_views, turned
from boneage_cli.core.runs import SHIPPED_MODEL, bundles_at
from boneage_cli.core.runtime import choose_backend, is_on_disk, run_graph
from boneage_cli.core.views import Rendered
from boneage_cli.cpu_limits import usable_threads
from boneage_cli.errors import BoneageError
from boneage_cli.imaging.radiograph import Radiograph
from boneage_cli.processes import ENOUGH_FOR_PROCESSES, processes_for, worker_processes
from boneage_cli.threads import in_turn, worker_threads

# Batch size for computing features.
_AT_ONCE = 32
# Number of radiographs sent to a worker process at a time.
_SENT = 8


class Answers(NamedTuple):
    """The models' outputs for n radiographs.

    Attributes:
        months: Bone ages, float (n,); NaN if no model predicts age.
        male_probability: Probabilities of being a boy, float (n,); NaN if no model predicts sex.
        scores: Out-of-distribution scores, float (n,); see ``Likeness.score``.
    """

    months: np.ndarray
    male_probability: np.ndarray
    scores: np.ndarray


class Predictor(Preparer):
    """Predicts with one or several trained models; models with the same output are averaged.

    Args:
        bundles: The models.
        device: ``auto``, ``cpu`` or ``cuda``.
        precision: ``auto``, ``32``, ``mixed``, ``bf16`` or ``fp16``.
        backend: Backend of the networks, see ``choose_backend``.
    """

    def __init__(
        self,
        bundles: Sequence[Bundle],
        device: str = "auto",
        precision: str = "auto",
        backend: str = "auto",
    ) -> None:
        self.device = choose_device(device)
        self.precision = choose_precision(precision, self.device)
        if (
            precision == "auto"
            and all(MIXED_PRECISION in bundle.metrics for bundle in bundles)
            and cpu_has_bf16()
            and choose_backend(backend, self.device, "32") == "openvino"
        ):
            self.precision = "mixed"
        self.runners = [
            run_graph(bundle.graph(), backend, self.device, self.precision) for bundle in bundles
        ]
        self.backend = self.runners[0].backend
        super().__init__(bundles, self.device, backend)
        # The models' files, from which worker processes load them; set by ``load`` only.
        self.files: list[Path] = []

    @classmethod
    def load(
        cls,
        bundles: str | Path | Sequence[str | Path] = SHIPPED_MODEL,
        device: str = "auto",
        precision: str = "auto",
        backend: str = "auto",
    ) -> Predictor:
        """Reads models from bundles, run folders, or folders of a cross-validation.

        Args:
            bundles: Their paths; by default the package's model.
            device: ``auto``, ``cpu`` or ``cuda``.
            precision: ``auto``, ``32``, ``mixed``, ``bf16`` or ``fp16``. With OpenVINO on CPUs with
                bf16, auto means mixed for models whose ages it was found to change little.
            backend: Backend of the networks, see ``choose_backend``.

        Raises:
            BoneageError: A file is not a bundle, or the device or backend is not available.
        """
        if isinstance(bundles, (str, Path)):
            bundles = [bundles]
        if not bundles:
            raise BoneageError("--model: name at least one model bundle")
        files = [file for path in bundles for file in bundles_at(Path(path))]
        predictor = cls([load_bundle(file) for file in files], device, precision, backend)
        predictor.files = files
        return predictor

    @property
    def description(self) -> str:
        """One-line description of the models and their networks."""
        return "; ".join(map(_described, self.bundles))

    @property
    def predicts_age(self) -> bool:
        """Whether a model predicts bone age."""
        return any("months" in bundle.outputs for bundle in self.bundles)

    @property
    def predicts_sex(self) -> bool:
        """Whether a model predicts sex."""
        return any("male_probability" in bundle.outputs for bundle in self.bundles)

    @property
    def labels(self) -> list[str]:
        """The manifest's columns with the true values of the predictions."""
        wanted = {"boneage": self.predicts_age, "male": self.predicts_sex}
        return [column for column, is_wanted in wanted.items() if is_wanted]

    def check_age(self, asked: str) -> None:
        """Checks that a model predicts age.

        Args:
            asked: The option or method that needs ages, for the message.

        Raises:
            BoneageError: No model predicts age.
        """
        if not self.predicts_age:
            raise BoneageError(
                f"{asked}: applies to bone ages, but {self.bundles[0].path} predicts only sex; "
                "choose a model that predicts ages"
            )

    def predict(
        self,
        radiographs: Sequence[Radiograph],
        male: Sequence[bool | None],
        *,
        tta: bool = False,
        batch_size: int = 32,
    ) -> np.ndarray:
        """Predicts the bone age of radiographs in memory; none is refused, see ``answer``.

        Args:
            radiographs: The radiographs.
            male: The sex of each child; None to take it from the radiograph.
            tta: Whether to average over mirrored and slightly rotated views.
            batch_size: Images per pass of the network.

        Returns:
            Months, float (n,).

        Raises:
            BoneageError: The model needs sex and one is unknown, or predicts no age.
        """
        self.check_age("predict")
        return self.answer(radiographs, male, tta=tta, batch_size=batch_size)[0]

    def predict_sex(
        self, radiographs: Sequence[Radiograph], *, tta: bool = False, batch_size: int = 32
    ) -> np.ndarray:
        """Predicts the probability of being a boy for radiographs in memory; none is refused.

        Args:
            radiographs: The radiographs.
            tta: Whether to average over mirrored and slightly rotated views.
            batch_size: Images per pass of the network.

        Returns:
            Probabilities, float (n,).

        Raises:
            BoneageError: No model predicts sex.
        """
        if not self.predicts_sex:
            raise BoneageError(
                f"{self.bundles[0].path}: this model predicts no sex; train one with "
                "model.targets = ['sex']"
            )
        # Models that predict the sex do not take it as input; other models' outputs are ignored.
        anything = [False] * len(radiographs)
        return self._of_radiographs(radiographs, anything, tta, batch_size)[0].male_probability

    def answer(
        self,
        radiographs: Sequence[Radiograph],
        male: Sequence[bool | None],
        *,
        tta: bool = False,
        batch_size: int = 32,
    ) -> tuple[np.ndarray, list[str | None]]:
        """Predicts the bone age of radiographs in memory, with reasons why some should be refused.

        Args:
            radiographs: The radiographs.
            male: The sex of each child; None to take it from the radiograph.
            tta: Whether to average over mirrored and slightly rotated views.
            batch_size: Images per pass of the network.

        Returns:
            Months, float (n,), and for each radiograph a code of ``REASONS`` or None.

        Raises:
            BoneageError: The model needs sex and one is unknown, one is none of these, or the model
                predicts no age.
        """
        self.check_age("answer")
        sexes = [r.male if m is None else m for r, m in zip(radiographs, male, strict=True)]
        # Any text, "F" too, would count as a boy.
        if unknown := [sex for sex in sexes if not isinstance(sex, (bool, np.bool_, NoneType))]:
            raise BoneageError(f"male: {unknown[0]!r} is neither True, False nor None")
        if self.needs_sex and None in sexes:
            source = radiographs[sexes.index(None)].source
            raise BoneageError(f"{source}: {SEX_UNKNOWN}")
        for radiograph, male_or_none in zip(radiographs, sexes, strict=True):
            if self.never_saw(male_or_none):
                raise BoneageError(f"{radiograph.source}: {self.of_one_sex}")
        answers, reasons = self._of_radiographs(radiographs, sexes, tta, batch_size)
        return answers.months, reasons

    def _of_radiographs(
        self,
        radiographs: Sequence[Radiograph],
        sexes: Sequence[bool | None],
        tta: bool,
        batch_size: int,
    ) -> tuple[Answers, list[str | None]]:
        answers = []
        reasons: list[str | None] = []
        for start in range(0, len(radiographs), batch_size):
            batch = radiographs[start : start + batch_size]
            pixels, found = zip(*map(self.see, batch), strict=True)
            answers.append(self._answer(pixels, sexes[start : start + batch_size], tta))
            reasons += [_reason(*pair) for pair in zip(found, answers[-1].scores, strict=True)]
        return _joined(answers), reasons

    def predict_files(
        self,
        cases: Iterable[Case],
        *,
        batch_size: int = 32,
        workers: int | None = None,
        tta: bool = False,
        interval: int | None = None,
        force: bool = False,
        processes: bool = False,
        slow_source: bool = False,
    ) -> Iterator[Prediction]:
        """Predicts radiographs on disk; yields the results in order as they become available.

        Threads read and preprocess ahead of the network. Their queue is bounded, so memory stays
        constant however many cases there are.

        Args:
            cases: The radiographs to predict; consumed lazily.
            batch_size: Images per pass of the network.
            workers: Number of reading threads or worker processes; None for one per core.
            tta: Whether to average over mirrored and slightly rotated views.
            interval: Level of the prediction intervals, per cent; None for no intervals.
            force: Whether to predict refused images, too.
            processes: Whether worker processes may be used for ``ENOUGH_FOR_PROCESSES`` cases or
                more, if ``load`` read the models from files. With OpenVINO the workers do the whole
                prediction, else they prepare the views. See ``worker_processes`` for what this
                requires of the calling program.
            slow_source: Whether cases may arrive one by one; those available are then predicted
                without waiting for more.

        Yields:
            A prediction for each case; one that cannot be read or is refused has an error instead
            of an age or sex.

        Raises:
            BoneageError: A model has not been calibrated for intervals, or the level is unknown.
        """
        if interval is not None:
            self.check_interval(interval)
        asked = Asked(tta, interval, force)
        workers = workers or usable_threads()
        source = iter(cases)
        if processes and (count := self.processes(workers)):
            enough, source = _at_least(ENOUGH_FOR_PROCESSES, source)
            if enough:
                yield from self._in_processes(source, count, batch_size, asked)
                return
        with worker_threads(workers) as pool:
            if slow_source:
                for chosen in as_they_come(source, batch_size):
                    found = list(pool.map(self.prepare, chosen))
                    yield from self._predict_batch(found, asked)
                return
            # Preparing two batches ahead keeps the readers busy while the network runs.
            ahead = 2 * batch_size + workers
            prepared = in_turn(lambda case: pool.submit(self.prepare, case), source, ahead)
            for batch in batched(prepared, batch_size):
                yield from self._predict_batch(batch, asked)

    def processes(self, workers: int) -> int:
        """Number of worker processes for a number of workers; 0 if only threads can be used."""
        able = self.files and (self._networks_travel or self._locator_travels)
        return processes_for(workers) if able else 0

    @property
    def _networks_travel(self) -> bool:
        """Whether worker processes can load the networks without converting them."""
        return all(map(is_on_disk, self.runners))

    def _in_processes(
        self, cases: Iterator[Case], count: int, batch_size: int, asked: Asked
    ) -> Iterator[Prediction]:
        """Implements ``predict_files`` with ``count`` worker processes."""
        chunks = batched(cases, _SENT)
        if self._networks_travel:
            answer = partial(_answerer, self.files, self.precision, asked)
            with worker_processes(count, answer) as submit:
                yield from chain.from_iterable(in_turn(submit, chunks, 4 * count))
            return
        # This process runs the networks (on the GPU, say), and the workers prepare the views.
        ahead = max(4 * count, 2 * batch_size // _SENT)
        with worker_processes(count, partial(_preparer, self.files)) as submit:
            prepared = chain.from_iterable(in_turn(submit, chunks, ahead))
            for batch in batched(prepared, batch_size):
                yield from self._predict_batch(batch, asked)

    def answer_files(self, cases: Sequence[Case], asked: Asked) -> list[Prediction]:
        """Does the same as ``predict_files`` for a few cases, in the calling thread."""
        return list(self._predict_batch(list(map(self.prepare, cases)), asked))

    def check_interval(self, level: int) -> None:
        """Checks, before any radiograph is read, that prediction intervals are available.

        Raises:
            BoneageError: A model has not been calibrated, the level is unknown, or no model
                predicts age.
        """
        check_level(level)
        self.check_age("--interval")
        for bundle in self.bundles:
            if "months" not in bundle.outputs:
                continue
            if bundle.calibration is not None:
                bundle.calibration.check(level)
            else:
                raise BoneageError(
                    f"{bundle.path}: this model has no calibration for --interval, which takes "
                    f"{LEAST_TO_CALIBRATE} radiographs: of the validation split when it is "
                    "trained, or of each sex that recalibrate corrects"
                )

    def interval(self, months: float, male: bool | None, level: int) -> tuple[float, float]:
        """Returns the prediction interval of an age.

        The half width for several models is the mean of theirs. Its coverage is not guaranteed: it
        depends on how their errors are correlated.

        Args:
            months: The predicted age.
            male: The child's sex; None if unknown.
            level: Expected coverage, per cent.

        Returns:
            Lower and upper end, months; the lower is at least 0.

        Raises:
            BoneageError: As ``check_interval``.
        """
        self.check_interval(level)
        halves = [
            bundle.calibration.half_width(months, male, level)
            for bundle in self.bundles
            if bundle.calibration is not None
        ]
        half = sum(halves) / len(halves)
        return max(0.0, months - half), months + half

    def predict_pixels(
        self,
        views: Callable[[np.ndarray], Rendered],
        male: np.ndarray,
        *,
        batch_size: int = 32,
    ) -> Answers:
        """Predicts rendered radiographs with models that all have the same views.

        Args:
            views: Returns the views of some of the n radiographs, by their indices.
            male: (n,), 1 for a boy, 0 for a girl; ignored by models without sex.
            batch_size: Images per pass of the network.
        """
        answers = []
        for start in range(0, len(male), batch_size):
            rows = np.arange(start, min(start + batch_size, len(male)))
            pixels = dict.fromkeys(self.renderers, views(rows))
            answers.append(self._forward(pixels, male[rows]))
        return _joined(answers)

    def features(self, views: Callable[[np.ndarray], Rendered], rows: np.ndarray) -> np.ndarray:
        """Computes the first model's features of rendered radiographs, see ``Likeness``.

        Args:
            views: Returns the views of some radiographs, by their indices.
            rows: The radiographs' indices, (n,).

        Returns:
            Features, float32 (n, F).
        """
        found = []
        for start in range(0, len(rows), _AT_ONCE):
            pixels = views(rows[start : start + _AT_ONCE])
            # The features do not depend on the sex.
            girls = np.zeros(len(next(iter(pixels.values()))), np.float32)
            found.append(self._run(0, pixels, girls)["features"])
        return np.concatenate(found)

    def _predict_batch(self, batch: Sequence[Prepared], asked: Asked) -> Iterator[Prediction]:
        pixels = [seen for _, seen in batch if seen is not None]
        male = [known.known_male for known, seen in batch if seen is not None]
        answers = iter(zip(*self._answer(pixels, male, asked.tta), strict=True) if pixels else ())
        for known, seen in batch:
            if seen is None:
                yield known
                continue
            age, probability, score = map(float, next(answers))
            reason = _reason(known.reason, score)
            if not all(
                math.isfinite(number)
                for number, wanted in ((age, self.predicts_age), (probability, self.predicts_sex))
                if wanted
            ):
                yield replace(known, error=NO_NUMBER, reason="no-number")
            elif reason and not asked.force:
                refused = f"refused: {REASONS[reason]} ({reason})"
                yield replace(known, error=refused, reason=reason)
            else:
                yield replace(
                    known,
                    months=age if self.predicts_age else None,
                    # No interval for forced predictions, whose error was not measured.
                    interval=self.interval(age, known.known_male, asked.interval)
                    if asked.interval and not reason
                    else None,
                    reason=reason,
                    male_probability=probability if self.predicts_sex else None,
                )

    def _answer(self, pixels: Sequence[Pixels], male: Sequence[bool | None], tta: bool) -> Answers:
        stacked = {
            settings: {
                name: np.stack([item[settings][name] for item in pixels]) for name in settings.names
            }
            for settings in self.renderers
        }
        return self._forward(stacked, np.array([bool(m) for m in male], np.float32), tta)

    def _run(self, number: int, views: Rendered, male: np.ndarray) -> dict[str, np.ndarray]:
        """Runs one model by its index; returns its ``outputs``, (n,) each, and features, (n, F)."""
        bundle = self.bundles[number]
        inputs = [views[name][:, None] for name in self.view_settings[number].names]
        found = self.runners[number](*inputs, *([male] if bundle.needs_sex else []))
        return dict(zip((*bundle.outputs, "features"), found, strict=True))

    def _forward(self, pixels: Pixels, male: np.ndarray, tta: bool = False) -> Answers:
        """Averages each output over the views, and over the models that have it."""
        self.mark("passing")
        male = np.asarray(male, np.float32)
        # By output, the prediction of each model, (n,).
        answers: dict[str, list[np.ndarray]] = {"months": [], "male_probability": []}
        scores: list[np.ndarray] = []
        for number, (bundle, settings) in enumerate(
            zip(self.bundles, self.view_settings, strict=True)
        ):
            looks = tta_views(bundle.experiment.augmentation) if tta else (AS_IT_IS,)
            found: dict[str, list[np.ndarray]] = {name: [] for name in bundle.outputs}
            for look in looks:
                views = {name: turned(array, look) for name, array in pixels[settings].items()}
                given = self._run(number, views, male)
                for name in bundle.outputs:
                    found[name].append(given[name].astype(np.float64))
                if bundle.likeness is not None and look == AS_IT_IS:
                    scores.append(bundle.likeness.score(given["features"]))
            for name, of_views in found.items():
                answers[name].append(np.mean(of_views, axis=0))
        months, male_probability = (
            np.mean(of_models, axis=0) if of_models else np.full(len(male), np.nan)
            for of_models in answers.values()
        )
        likeness = np.mean(scores, axis=0) if scores else np.zeros(len(male))
        # A bone age is never negative.
        months = np.maximum(months, 0.0)
        self.mark("passed")
        return Answers(months, male_probability, likeness)


def _joined(batches: Sequence[Answers]) -> Answers:
    empty = (np.empty(0),) * len(Answers._fields)
    return Answers(*map(np.concatenate, zip(empty, *batches, strict=True)))


def _at_least(count: int, cases: Iterator[Case]) -> tuple[bool, Iterator[Case]]:
    """Whether there are at least ``count`` cases, and all cases; errors are raised in place."""
    first: list[Case] = []
    try:
        first.extend(islice(cases, count))
    except BoneageError as error:
        return False, chain(first, _raising(error))
    return len(first) == count, chain(first, cases)


def _raising(error: BoneageError) -> Iterator[Case]:
    raise error
    yield


def _answerer(
    files: Sequence[Path], precision: str, asked: Asked
) -> Callable[[Sequence[Case]], list[Prediction]]:
    """Returns the function with which a worker process predicts cases."""
    predictor = Predictor.load(files, "cpu", precision, "openvino")
    return partial(predictor.answer_files, asked=asked)


def _preparer(files: Sequence[Path]) -> Callable[[Sequence[Case]], list[Prepared]]:
    """Returns the function with which a worker process prepares cases."""
    preparer = Preparer([load_bundle(file) for file in files])
    return lambda cases: list(map(preparer.prepare, cases))


def _reason(of_key_points: str | None, score: float) -> str | None:
    return of_key_points or ("unlike-training" if score > 1 else None)


def _described(bundle: Bundle) -> str:
    own, model = bundle.path == SHIPPED_MODEL, bundle.experiment.model
    name = f"the package's {SHIPPED_MODEL.name}" if own else str(bundle.path)
    backbones = " and ".join(str(each.experiment.model.backbone) for each in bundle.networks)
    sex = "with sex" if model.gender else "without sex"
    if "sex" in model.targets:
        sex = "predicts " + " and ".join(model.targets)
    return f"{name} ({model.family}, {backbones}, {sex})"
