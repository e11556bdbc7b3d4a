"""DistilBERT classifiers in OpenVINO on CPUs; imports neither torch nor transformers."""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Iterable, Iterator

import numpy as np

from rayft.errors import UsageError
from rayft.model.checkpoint import Checkpoint
from rayft.model.engine import Batch, EngineSpec
from rayft.model.openvino_graph import build_graph, read_weights
from rayft.model.openvino_import import ov

_HINTS = {"fp32": "f32", "bf16": "bf16"}


class OpenVinoEngine:
    """A DistilBERT classifier with a stream of batches per CPU thread.

    A thread that computes a batch of its own waits for no other thread, so `threads` batches in
    flight (`logits_many`) are faster than one batch on all threads. Each batch is computed by one
    thread whatever else runs: the same batch gives the same bits.

    In bf16 the logits themselves leave the last matrix product in fp32.

    Raises:
        UsageError: the weights cannot be loaded, or the processor lacks the precision.
    """

    def __init__(self, checkpoint: Checkpoint, spec: EngineSpec, threads: int) -> None:
        self.spec = spec
        hint = _HINTS[spec.precision]
        graph = build_graph(checkpoint.config, read_weights(checkpoint.directory))
        compiled = ov.Core().compile_model(
            graph,
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": hint,
                "INFERENCE_NUM_THREADS": threads,
                "NUM_STREAMS": threads,
                # Several processes on one machine (Ray actors, a second run) would pin to the same cores.
                "ENABLE_CPU_PINNING": False,
            },
        )
        if compiled.get_property("INFERENCE_PRECISION_HINT").to_string() != hint:
            raise UsageError(
                f"OpenVINO cannot compute in {spec.precision} on this processor. "
                "Use --precision fp32, or --engine-backend torch."
            )
        self._free: queue.SimpleQueue[ov.InferRequest] = queue.SimpleQueue()
        for _ in range(threads):
            self._free.put(compiled.create_infer_request())

    def logits(self, input_ids: np.ndarray, attention_mask: np.ndarray) -> np.ndarray:
        (logits,) = self.logits_many([(input_ids, attention_mask)])
        return logits

    def logits_many(self, batches: Iterable[Batch]) -> Iterator[np.ndarray]:
        """Yield the logits of each batch in order, as many batches in flight as there are threads.

        Threads may call this at the same time; they share the requests.
        """
        running: deque[ov.InferRequest] = deque()
        try:
            for input_ids, attention_mask in batches:
                while (request := self._request(wait=not running)) is None:
                    yield self._finish(running)
                running.append(request)
                request.start_async([input_ids, attention_mask])
            while running:
                yield self._finish(running)
        finally:  # the caller stopped early: a request that is still busy cannot be started again
            for request in running:
                request.wait()
                self._free.put(request)

    def _request(self, wait: bool) -> ov.InferRequest | None:
        """Return a request that nobody uses, None if there is none and the caller need not wait."""
        try:
            return self._free.get(block=wait)
        except queue.Empty:
            return None

    def _finish(self, running: deque[ov.InferRequest]) -> np.ndarray:
        """Wait for the oldest request, give it back and return its logits."""
        request = running[0]
        request.wait()
        logits: np.ndarray = request.get_output_tensor(0).data.copy()
        self._free.put(running.popleft())
        return logits
