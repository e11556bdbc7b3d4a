"""OpenVINO without its model converter, which rayft does not use and which takes most of its import time.

OpenVINO goes without `openvino.tools.ovc` where that is not installed. Here it is hidden while OpenVINO is
imported, and found again afterwards by whoever asks for it.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

_CONVERTER = "openvino.tools.ovc"


def _convert_model(*args: Any, **options: Any) -> Any:
    """openvino.convert_model, imported when it is called."""
    return importlib.import_module(_CONVERTER).convert_model(*args, **options)


if "openvino" in sys.modules:
    import openvino as ov
else:
    sys.modules[_CONVERTER] = None  # type: ignore[assignment]
    try:
        import openvino as ov
    finally:
        del sys.modules[_CONVERTER]
    if not hasattr(ov, "convert_model"):
        ov.convert_model = _convert_model

from openvino import opset13 as op  # noqa: E402 (after the above)

__all__ = ["op", "ov"]
