"""Engines, the runtimes of a graph: float32 (N, 3, S, S) → float32 (N, C) probabilities, temperature scaling applied.

Every engine runs in the caller's thread with as many threads of its own as it was opened with; `run` may be called
from several threads at once. Precision is always explicit: OpenVINO would pick bfloat16 by itself on CPUs that have it.
"""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from threading import Lock
from typing import Any

import numpy as np

from lensmith.bundle.format import Bundle, EngineRecord
from lensmith.core.machine import allowed_cores, cache_dir, instruction_sets
from lensmith.core.stats import smoothed
from lensmith.core.text import first_line
from lensmith.errors import BundleError, FallbackWarning, ImageError, OutOfMemoryError
from lensmith.imaging.preprocessing import Tensor, preprocess

FEATURES = "features"
"""Name of a graph's second output, where it has one: the input of its last layer."""


class Engine(ABC):
    """A loaded graph.

    Attributes:
        name: `onnxruntime`, `openvino`, `onnxruntime-cuda`, `onnxruntime-tensorrt` or `fake`.
        precision: `fp32`, `bf16`, `fp16`, `int8` or `int8-dynamic`.
        threads: threads that one call may use.
    """

    name: str
    precision: str
    threads: int

    def __init__(self, temperature: float = 1.0, smoothing: float = 0.0) -> None:
        self._temperature, self._smoothing = temperature, smoothing  # the two that `scaling` stands for below

    @abstractmethod
    def outputs(self, batch: Tensor) -> tuple[Tensor, Tensor | None]:
        """float32 (N, 3, S, S) → logits, float32 (N, C), and features, float32 (N, D), or None without such output."""

    def logits(self, batch: Tensor) -> Tensor:
        """float32 (N, 3, S, S) → float32 (N, C), unnormalised."""
        return self.outputs(batch)[0]

    def run(self, batch: Tensor) -> Tensor:
        """float32 (N, 3, S, S) → float32 (N, C): probabilities that sum to 1 in each row."""
        return self._probabilities(self.logits(batch))

    def run_with_features(self, batch: Tensor) -> tuple[Tensor, Tensor | None]:
        """float32 (N, 3, S, S) → probabilities, float32 (N, C), and the last layer's input, float32 (N, D), or None."""
        logits, features = self.outputs(batch)
        return self._probabilities(logits), features

    def _probabilities(self, logits: Tensor) -> Tensor:
        scaled = logits / np.float32(self._temperature)
        exponentials = np.exp(scaled - scaled.max(axis=1, keepdims=True))
        return smoothed(exponentials / exponentials.sum(axis=1, keepdims=True), self._smoothing)


class OnnxRuntimeEngine(Engine):
    """ONNX Runtime on the CPU; an int8 graph contains its quantization."""

    name = "onnxruntime"
    provider = "CPUExecutionProvider"

    def __init__(self, graph: str, precision: str, threads: int, *scaling: float) -> None:
        super().__init__(*scaling)
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4  # errors are raised, and need not be printed as well
        # Spinning helps one caller and starves the others on a small machine.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = ort.InferenceSession(graph, options, providers=[(self.provider, self._options(precision))])
        self._input = self._session.get_inputs()[0].name
        names = [output.name for output in self._session.get_outputs()]
        self._names = [names[0], FEATURES] if FEATURES in names else names[:1]
        self.precision, self.threads = precision, threads
        if self.provider not in self._session.get_providers():  # it falls back silently
            raise RuntimeError(f"{self.provider} is in the package and does not start here")

    @classmethod
    def missing(cls) -> str:
        """Reason why this machine cannot run the engine; empty if it can."""
        if not find_spec("onnxruntime"):
            return "onnxruntime is not installed (pip install onnxruntime)"
        import onnxruntime as ort

        has = cls.provider in ort.get_available_providers()
        return "" if has else f"onnxruntime here has no {cls.provider} (pip install onnxruntime-gpu)"

    def outputs(self, batch: Tensor) -> tuple[Tensor, Tensor | None]:
        """float32 (N, 3, S, S) → logits, float32 (N, C), and features, float32 (N, D) or None; see `Engine`."""
        logits, *features = self._session.run(self._names, {self._input: batch})
        return logits, features[0] if features else None

    def _options(self, precision: str) -> dict[str, str]:
        """Options of the execution provider."""
        return {}


class CudaEngine(OnnxRuntimeEngine):
    """ONNX Runtime on an NVIDIA GPU."""

    name = "onnxruntime-cuda"
    provider = "CUDAExecutionProvider"

    def _options(self, precision: str) -> dict[str, str]:
        return {"use_tf32": "0"}  # which would round fp32


class TensorRtEngine(OnnxRuntimeEngine):
    """TensorRT under ONNX Runtime. Plans are built for the GPU at hand on first load, and cached on disk."""

    name = "onnxruntime-tensorrt"
    provider = "TensorrtExecutionProvider"

    def _options(self, precision: str) -> dict[str, str]:
        plans = cache_dir() / "tensorrt"
        plans.mkdir(parents=True, exist_ok=True)
        return {
            "trt_fp16_enable": str(precision == "fp16"),
            "trt_engine_cache_enable": "True",
            "trt_engine_cache_path": str(plans),
        }


_FIRST_INFERENCE = Lock()


@cache
def openvino_core() -> Any:
    """The process's one Core, which keeps OpenVINO's plugin loaded.

    The plugin gives the thread that loads it an alternate signal stack. If it were unloaded with the last model, in
    whichever thread drops that, the stack would be gone and the next signal would end the process.
    """
    import openvino as ov

    return ov.Core()


class OpenVinoEngine(Engine):
    """OpenVINO on the CPU, at an explicit precision."""

    name = "openvino"

    def __init__(self, graph: str, precision: str, threads: int, *scaling: float) -> None:
        super().__init__(*scaling)
        # One stream for each caller, up to the cores: concurrent calls do not wait for one another.
        streams = max(1, allowed_cores() // threads)
        hints: dict[str, Any] = {
            # In an int8 graph this is the precision of the layers between the quantized ones.
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
            "INFERENCE_NUM_THREADS": threads * streams,  # of all streams together
            "NUM_STREAMS": streams,
        }
        self._model = openvino_core().compile_model(graph, "CPU", hints)
        self.precision, self.threads = precision, threads
        self._has_features = any(FEATURES in output.names for output in self._model.outputs)
        # OpenVINO's Python binding completes its imports during a process's first inference, and threads that run that
        # at the same time deadlock.
        with _FIRST_INFERENCE:
            shape = [size.get_min_length() or 1 for size in self._model.input().partial_shape]
            self.logits(np.zeros(shape, dtype=np.float32))

    @classmethod
    def missing(cls) -> str:
        """Reason why this machine cannot run the engine; empty if it can."""
        return "" if find_spec("openvino") else "openvino is not installed (pip install 'lensmith[openvino]')"

    def outputs(self, batch: Tensor) -> tuple[Tensor, Tensor | None]:
        """float32 (N, 3, S, S) → logits, float32 (N, C), and features, float32 (N, D) or None; see `Engine`."""
        # Each call has a request of its own: compiled models share one request when called directly.
        answers = self._model.create_infer_request().infer([batch])
        return answers[0], answers[FEATURES] if self._has_features else None


class FakeEngine(Engine):
    """An engine for tests: `answer` maps a batch, float32 (N, 3, S, S), to logits, `features` to features."""

    name = "fake"
    precision = "fp32"
    threads = 1

    def __init__(
        self,
        answer: Callable[[Tensor], Tensor],
        temperature: float = 1.0,
        features: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__(temperature)
        self._answer, self._features = answer, features

    def outputs(self, batch: Tensor) -> tuple[Tensor, Tensor | None]:
        """float32 (N, 3, S, S) → logits, float32 (N, C), and features, float32 (N, D) or None; see `Engine`."""
        return self._answer(batch), self._features(batch) if self._features else None


ENGINES: dict[str, type[OnnxRuntimeEngine] | type[OpenVinoEngine]] = {
    engine.name: engine for engine in (OnnxRuntimeEngine, OpenVinoEngine, CudaEngine, TensorRtEngine)
}


def open_graph(graph: str, engine: str, precision: str, threads: int, *scaling: float) -> Engine:
    """Load one graph file with a named engine; `scaling` is the temperature and the smoothing, by default 1 and 0."""
    return ENGINES[engine](graph, precision, threads, *scaling)


def open_engine(bundle: Bundle, engine: str | None = None, threads: int | None = None) -> Engine:
    """Load a bundle's selected engine and verify it: output shape, finite values, golden samples.

    Where this machine cannot run that engine, the bundle's next one takes its place, with a `FallbackWarning`. An
    engine that runs but answers differently from the export is an error.

    Args:
        bundle: a bundle whose hashes were verified.
        engine: name of an engine to use instead, `openvino` or `openvino-int8`, without fallback.
        threads: number of threads for one call; by default the cores allowed.

    Raises:
        BundleError: the graph does not load, has another shape, or answers differently from the export; or this
            machine can run none of the engines.
    """
    missing: list[str] = []
    for record in bundle.records(engine):
        if lack := lacks(record):
            missing.append(f"{record.name}: {lack}")
            continue
        if missing:
            message = f"{bundle.path} runs on {record.name} here ({'; '.join(missing)})"
            warnings.warn(message, FallbackWarning, stacklevel=2)
        return open_record(bundle, record, threads or allowed_cores())
    raise BundleError(
        f"An engine of the bundle {bundle.path} that runs on this machine was expected.",
        f"{'; '.join(missing)}.",
        "Install what is missing, name another engine, or export the run again for this machine.",
    )


def open_record(bundle: Bundle, record: EngineRecord, threads: int) -> Engine:
    """Load one engine of a bundle and verify it; see `open_engine`."""
    graph = str(bundle.path / str(record.graph))
    try:
        scaling = bundle.manifest.temperature, bundle.manifest.smoothing
        opened = open_graph(graph, record.engine, record.precision, threads, *scaling)
        _verify_golden(bundle, record, opened)
    except (BundleError, ModuleNotFoundError):
        raise
    except Exception as error:  # each engine has exceptions of its own
        if (out_of_memory := OutOfMemoryError.of(error)) is not None:
            raise out_of_memory from error
        raise BundleError(
            f"A graph that {record.engine} can run was expected in {graph}.",
            f"{first_line(error)}.",
            "Export the run again, or name another engine.",
        ) from error
    return opened


def lacks(record: EngineRecord) -> str:
    """Reason why this machine cannot run an engine correctly and fast; empty if it can."""
    known = ENGINES.get(record.engine)
    if known is None:
        return f"this lensmith knows no engine {record.engine}"
    if missing := known.missing():
        return missing
    if record.needs and not {*record.needs} & {*instruction_sets()}:
        return f"this processor has no {' or '.join(record.needs)}"
    return ""


def _verify_golden(bundle: Bundle, record: EngineRecord, engine: Engine) -> None:
    golden = bundle.golden()
    try:
        batch = np.stack([preprocess(image, bundle.manifest.preprocessing) for image in golden.images])
    except ImageError as error:  # floats of before bundles had value ranges
        raise BundleError(
            f"Golden samples that can be decoded were expected in the bundle {bundle.path}.",
            error.arrived,
            "Train and export it anew with this lensmith; which value is white is decided in the training.",
        ) from error
    if problem := golden.problem(record.name, engine.run(batch), record.golden_tolerance):
        raise BundleError(
            f"The bundle {bundle.path} was expected to answer its golden samples as it did when exported.",
            f"With {record.engine} {record.precision} {problem}.",
            "Export the run again on this machine, or name another engine.",
        )
