"""Engines: float32 (N, 3, S, S) → float32 (N, C) probabilities, temperature and softmax applied.

Every engine runs in the caller's thread with as many threads of its own as it was opened with; `run` may be called
from several threads at once. Precision is always said explicitly: OpenVINO would pick bfloat16 by itself on CPUs that
have it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cache
from threading import Lock
from typing import Any

import numpy as np

from lensmith.bundle import Bundle, EngineRecord
from lensmith.errors import BundleError
from lensmith.image import Tensor, preprocess
from lensmith.machine import allowed_cores


class Engine(ABC):
    """One loaded model.

    Attributes:
        name: `onnxruntime`, `openvino` or `fake`.
        precision: `fp32`, `bf16`, …
        threads: threads that one call may use.
    """

    name: str
    precision: str
    threads: int

    def __init__(self, temperature: float = 1.0) -> None:
        self._temperature = temperature

    @abstractmethod
    def logits(self, batch: Tensor) -> Tensor:
        """float32 (N, 3, S, S) → float32 (N, C), unnormalised."""

    def run(self, batch: Tensor) -> Tensor:
        """float32 (N, 3, S, S) → float32 (N, C): probabilities that sum to 1 in each row."""
        scaled = self.logits(batch) / np.float32(self._temperature)
        exponentials = np.exp(scaled - scaled.max(axis=1, keepdims=True))
        result: Tensor = exponentials / exponentials.sum(axis=1, keepdims=True)
        return result


class OnnxRuntimeEngine(Engine):
    """ONNX Runtime on the CPU."""

    name = "onnxruntime"

    def __init__(self, graph: str, precision: str, threads: int, temperature: float = 1.0) -> None:
        super().__init__(temperature)
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4  # errors are raised, and need not be printed, too
        # Spinning helps one caller and starves the others on a small machine.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name
        self.precision = precision
        self.threads = threads

    def logits(self, batch: Tensor) -> Tensor:
        """See `Engine.logits`."""
        result: Tensor = self._session.run(None, {self._input: batch})[0]
        return result


_FIRST_ANSWER = Lock()


@cache
def _openvino() -> Any:
    """The process's one Core, which holds OpenVINO's plugin for good.

    The plugin gives the thread that loads it an alternate signal stack. Were it unloaded with the last model, in
    whichever thread lets go of that, the stack would be gone, and the next signal would end the process.
    """
    import openvino as ov

    return ov.Core()


class OpenVinoEngine(Engine):
    """OpenVINO on the CPU, at an explicit precision."""

    name = "openvino"

    def __init__(self, graph: str, precision: str, threads: int, temperature: float = 1.0) -> None:
        super().__init__(temperature)
        # One stream for each caller, up to the cores: concurrent calls do not wait for one another.
        streams = max(1, allowed_cores() // threads)
        hints: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[precision],
            "INFERENCE_NUM_THREADS": threads * streams,  # of all streams together
            "NUM_STREAMS": streams,
        }
        self._model = _openvino().compile_model(graph, "CPU", hints)
        self.precision = precision
        self.threads = threads
        # OpenVINO's Python binding completes itself during a process's first answer, and threads that ask for it at the
        # same time wait for one another for ever.
        with _FIRST_ANSWER:
            shape = [size.get_min_length() or 1 for size in self._model.input().partial_shape]
            self.logits(np.zeros(shape, dtype=np.float32))

    def logits(self, batch: Tensor) -> Tensor:
        """See `Engine.logits`."""
        # A request of one's own for each call: compiled models share one request when called directly.
        result: Tensor = self._model.create_infer_request().infer([batch])[0]
        return result


class FakeEngine(Engine):
    """An engine for tests: `answer` turns a batch into logits."""

    name = "fake"
    precision = "fp32"
    threads = 1

    def __init__(self, answer: Callable[[Tensor], Tensor], temperature: float = 1.0) -> None:
        super().__init__(temperature)
        self._answer = answer

    def logits(self, batch: Tensor) -> Tensor:
        """See `Engine.logits`."""
        return self._answer(batch)


ENGINES: dict[str, type[OnnxRuntimeEngine] | type[OpenVinoEngine]] = {
    "onnxruntime": OnnxRuntimeEngine,
    "openvino": OpenVinoEngine,
}


def open_graph(graph: str, engine: str, precision: str, threads: int, temperature: float = 1.0) -> Engine:
    """Load one graph file with a named engine."""
    return ENGINES[engine](graph, precision, threads, temperature)


def open_engine(bundle: Bundle, engine: str | None = None, threads: int | None = None) -> Engine:
    """Load a bundle's chosen engine (or the named one) and prove it: output shape, finite values, golden samples.

    Args:
        bundle: a bundle whose hashes were verified.
        engine: another of the bundle's engines.
        threads: threads for one call; the cores allowed by default.

    Raises:
        BundleError: the graph does not load, has another shape, or answers differently from the exporter.
    """
    record = bundle.record(engine)
    try:
        opened = open_graph(
            str(bundle.path / record.graph),
            record.engine,
            record.precision,
            threads or allowed_cores(),
            bundle.manifest.temperature,
        )
        _verify_golden(bundle, record, opened)
    except (BundleError, ModuleNotFoundError):
        raise
    except Exception as error:  # each engine has exceptions of its own
        raise BundleError(
            f"A graph that {record.engine} can run was expected in {bundle.path / record.graph}.",
            f"It said: {str(error).splitlines()[0]}",
            "Export the run again, or name another engine.",
        ) from error
    return opened


def _verify_golden(bundle: Bundle, record: EngineRecord, engine: Engine) -> None:
    golden = bundle.golden()
    batch = np.stack([preprocess(image, bundle.manifest.preprocessing) for image in golden.images])
    answered = engine.run(batch)
    expected_shape = (len(golden.images), len(bundle.labels))
    if answered.shape != expected_shape:
        problem = f"it answered with shape {answered.shape} instead of {expected_shape}"
    elif not np.isfinite(answered).all():
        problem = "it answered with values that are not numbers"
    else:
        difference = float(np.abs(answered - golden.probabilities).max())
        if difference <= record.golden_tolerance:
            return
        problem = f"a probability differs by {difference:.2g}, and {record.golden_tolerance:.2g} is allowed"
    raise BundleError(
        f"The bundle {bundle.path} was expected to answer its golden samples as the exporter saw them.",
        f"With {record.engine} {record.precision} {problem}.",
        "Export the run again on this machine, or name another engine.",
    )
