"""Inference: OpenVINO on CPUs, torch on GPUs and where OpenVINO is not installed.

OpenVINO runs these networks 1.4 to 2.4 times as fast as torch on the same cores, predicts the same
months to a thousandth, and does not need torch, which takes seconds to import.
"""

from __future__ import annotations

import queue
import shutil
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext, suppress
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol, get_args

import numpy as np

from boneage_cli.choices import Backend
from boneage_cli.core.conversion import Graph, write_onnx
from boneage_cli.core.conversion_cache import (
    cached_path,
    keep,
    mark_as_used,
    save_graph,
    shipped_graph,
)
from boneage_cli.core.hardware import Arithmetic, autocast, cpu_has_bf16, device_type
from boneage_cli.core.mixed_precision import COARSE, PartsRequest, parts
from boneage_cli.cpu_limits import usable_threads
from boneage_cli.errors import BoneageError, BoneageWarning
from boneage_cli.interrupts import interrupts_wait
from boneage_cli.progress import track

if TYPE_CHECKING:
    from openvino import InferRequest
    from torch import Tensor

_PACKAGES = {"onnxruntime": ("onnx", "onnxscript", "onnxruntime"), "openvino": ("openvino",)}
_FIRST = Lock()


class Runner(Protocol):
    """Runs a graph; safe to call from several threads.

    Attributes:
        backend: Name of the backend.
    """

    backend: str

    def __call__(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        """Returns the outputs, float32, for inputs in order; the first axis is the batch."""
        ...


def choose_backend(name: str, device: str, precision: Arithmetic) -> Backend:
    """Chooses the backend that runs the networks.

    ``auto`` means OpenVINO on a CPU that supports the precision in hardware, else torch.

    Raises:
        BoneageError: The backend is unknown, not installed, or does not run on the device.
    """
    if name not in get_args(Backend):
        raise BoneageError(f"--backend {name}: unknown; take {', '.join(get_args(Backend))}")
    on_cpu = device_type(device) == "cpu"
    if name == "auto":
        quick = on_cpu and find_spec("openvino") and (precision == "32" or cpu_has_bf16())
        return "openvino" if quick else "torch"
    if name in ("onnxruntime", "openvino"):
        if not on_cpu:
            raise BoneageError(f"--backend {name}: runs on the CPU here; add --device cpu")
        check_packages(f"--backend {name}", name)
    if name == "openvino" and precision == "bf16" and not cpu_has_bf16():
        raise BoneageError("--backend openvino: this CPU has no bf16; add --precision 32")
    if name == "onnxruntime" and precision != "32":
        raise BoneageError("--backend onnxruntime: runs in full precision; add --precision 32")
    if name in ("torch", "compiled") and precision == "mixed":
        raise BoneageError(f"--backend {name}: --precision mixed is OpenVINO's; take 32 or bf16")
    return name  # type: ignore[return-value]


def check_packages(asked: str, backend: str) -> None:
    """Checks that the packages needed to convert a network for a backend are installed.

    Args:
        asked: The option that needs the backend, for messages.
        backend: ``onnxruntime`` or ``openvino``.

    Raises:
        BoneageError: A package is missing; the message says how to install it.
    """
    missing = [name for name in _PACKAGES[backend] if find_spec(name) is None]
    if missing:
        raise BoneageError(
            f"{asked}: needs {', '.join(missing)}; install with: pip install {' '.join(missing)}"
        )


def run_graph(graph: Graph, backend: str, device: str, precision: Arithmetic) -> Runner:
    """Loads a graph into a backend.

    Args:
        graph: The graph.
        backend: See ``choose_backend``; with ``auto``, torch runs graphs that OpenVINO cannot
            convert.
        device: As returned by ``choose_device``.
        precision: As returned by ``choose_precision``.

    Raises:
        BoneageError: As ``choose_backend``, or the backend cannot run this network.
    """
    chosen = choose_backend(backend, device, precision)
    try:
        if chosen == "openvino":
            with interrupts_wait():
                import openvino  # noqa: F401
            return _OpenVino(graph, precision)
        if chosen == "onnxruntime":
            return _OnnxRuntime(graph)
        runner = _Torch(graph, device, precision, compiled=chosen == "compiled")
        if chosen == "compiled":
            # Compiles now, so that a failure is reported here and not during the first batch.
            runner(*graph.example().values())
    except (BoneageError, ModuleNotFoundError):
        raise
    except Exception as error:
        # The backends raise many different exception types.
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        if chosen == "torch":
            raise
        if backend != "auto":
            raise BoneageError(
                f"--backend {backend}: cannot run this network ({reason}); take --backend torch"
            ) from error
        warnings.warn(
            f"{chosen} cannot run this network ({reason}); torch does, more slowly",
            BoneageWarning,
            stacklevel=2,
        )
        return _Torch(graph, device, precision)
    return runner


def is_on_disk(runner: Runner) -> bool:
    """Whether the converted network is on disk, so that a new process need not convert it."""
    return isinstance(runner, _OpenVino) and runner.kept


class _Torch:
    """Runs a module on its device, with the batches as given."""

    def __init__(
        self, graph: Graph, device: str, precision: Arithmetic, *, compiled: bool = False
    ) -> None:
        import torch

        module = graph.make().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.module: Any = torch.compile(module) if compiled else module
        self.device, self.precision = device, precision
        if precision == "32" and device_type(device) == "cuda":
            # Otherwise convolutions on GPUs use TF32, which keeps ten bits of the mantissa. Set for
            # the whole process, since other threads may be running networks of their own.
            torch.backends.cudnn.allow_tf32 = False
        self.backend = "compiled" if compiled else "torch"
        # torch.compile is not thread-safe, and on a CPU one pass uses all cores anyway.
        one_at_a_time = compiled or device_type(device) == "cpu"
        self.alone: AbstractContextManager[Any] = Lock() if one_at_a_time else nullcontext()

    def __call__(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        import torch

        with self.alone, torch.inference_mode():
            # Copies, since memory-mapped arrays are read-only.
            tensors = [torch.from_numpy(np.array(array)).to(self.device) for array in inputs]
            if self.backend == "compiled":
                # Only the batch dimension is dynamic: with dynamic height and width, torch analyses
                # the network's padding for minutes before it compiles anything.
                for tensor in tensors:
                    torch._dynamo.maybe_mark_dynamic(tensor, 0)
            found = self._outputs(tensors, self.precision)
            if self.precision == "fp16" and not all(np.isfinite(each).all() for each in found):
                # Networks trained in bf16 may have activations above 65,504, the largest fp16.
                found = self._outputs(tensors, "32")
            return found

    def _outputs(self, tensors: Sequence[Tensor], precision: Arithmetic) -> tuple[np.ndarray, ...]:
        with autocast(precision, self.device):
            return tuple(output.float().cpu().numpy() for output in self.module(*tensors))


class _OpenVino:
    """Runs a graph on all cores, with one image per core at a time.

    Predictions therefore do not depend on the rest of the batch, and no new batch size has to be
    compiled. On CPUs, batches of these networks are no faster per image.
    """

    backend = "openvino"

    def __init__(self, graph: Graph, precision: Arithmetic) -> None:
        import openvino

        streams = usable_threads()
        settings = {
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
            "NUM_STREAMS": streams,
            "INFERENCE_NUM_THREADS": streams,
            # The threads that read and preprocess need the cores, too.
            "ENABLE_CPU_PINNING": False,
        }
        self.mixed = precision == "mixed"
        self.requests: queue.SimpleQueue[InferRequest | PartsRequest] = queue.SimpleQueue()
        kept = cached_path(graph)
        for request in self._compiled(openvino.Core(), graph, kept, settings):
            self.requests.put(request)
        self.kept = kept is not None and (kept.is_file() or shipped_graph(graph).is_file())
        self.outputs = len(graph.outputs)
        self.pool = ThreadPoolExecutor(streams, thread_name_prefix="network")
        # OpenVINO's Python bindings initialise at the first inference; two threads that do so at
        # the same time deadlock.
        with _FIRST:
            self._one([array[:1] for array in graph.example().values()])

    def __call__(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        images = [[each[row : row + 1] for each in inputs] for row in range(len(inputs[0]))]
        run = map if len(images) == 1 else self.pool.map
        found = list(run(self._one, images))
        return tuple(np.concatenate(arrays) for arrays in zip(*found, strict=True))

    def _one(self, inputs: list[np.ndarray]) -> list[np.ndarray]:
        request = self.requests.get()
        try:
            request.infer([np.ascontiguousarray(each) for each in inputs])
            # Copies, since the next inference overwrites the request's output tensors.
            return [
                np.array(request.get_output_tensor(number).data, np.float32)
                for number in range(self.outputs)
            ]
        finally:
            self.requests.put(request)

    def _compiled(
        self, core: Any, graph: Graph, kept: Path | None, settings: dict[str, Any]
    ) -> Sequence[InferRequest | PartsRequest]:
        """Returns inference requests of the compiled network, one per thread."""
        if kept is not None:
            # The model compiled for this CPU is cached next to the graph, if that is writable.
            compiled = kept.with_suffix("")
            for path in filter(Path.is_file, (kept, shipped_graph(graph))):
                for beside in ({"CACHE_DIR": str(compiled)}, {}):
                    # Damaged files are rebuilt; OpenVINO raises RuntimeError on them.
                    with suppress(Exception):
                        requests = self._requests(core, path, settings | beside)
                        mark_as_used(kept)
                        return requests
                    shutil.rmtree(compiled, ignore_errors=True)
        # Some systems cannot delete files that are still memory-mapped.
        with TemporaryDirectory(prefix="boneage-", ignore_cleanup_errors=True) as folder:
            made = Path(folder, "graph.xml")
            with track(total=1, description="convert network", unit="network"):
                save_graph(graph, made)
            if kept is not None:
                keep(made, kept)
            return self._requests(core, made, settings)

    def _requests(
        self, core: Any, path: Path, settings: dict[str, Any]
    ) -> Sequence[InferRequest | PartsRequest]:
        streams = range(settings["NUM_STREAMS"])
        found = parts(core.read_model(path)) if self.mixed else []
        if not found:
            model = core.compile_model(path, "CPU", settings)
            return [model.create_infer_request() for _ in streams]
        takes = [part.takes for part in found]
        # Parts shared by threads run a third slower than one copy per thread.
        alone = settings | {"NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": 1}
        coarse = alone | {"INFERENCE_PRECISION_HINT": "bf16"}

        def request(number: int) -> InferRequest:
            chosen = coarse if number == COARSE else alone
            return core.compile_model(found[number].model, "CPU", chosen).create_infer_request()

        return [PartsRequest(list(map(request, range(len(found)))), takes) for _ in streams]


class _OnnxRuntime:
    """Runs a graph in ONNX Runtime on the CPU."""

    backend = "onnxruntime"

    def __init__(self, graph: Graph) -> None:
        import onnxruntime

        with TemporaryDirectory() as folder:
            path = Path(folder, "graph.onnx")
            write_onnx(graph, path)
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = usable_threads()
            self.session = onnxruntime.InferenceSession(
                path.read_bytes(), options, providers=["CPUExecutionProvider"]
            )
        self.names = list(graph.inputs)

    def __call__(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        feed = {
            name: np.ascontiguousarray(array)
            for name, array in zip(self.names, inputs, strict=True)
        }
        return tuple(np.asarray(output, np.float32) for output in self.session.run(None, feed))
