"""Python, packages, processor, GPU, memory and the temporary folder of this machine."""

from __future__ import annotations

import os
import platform
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path

from rayft.doctor.check import Check, one_line, size

_FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16")
_MEMORY_WARN, _MEMORY_ERROR = 2 << 30, 1 << 30
_TEMP_WARN, _TEMP_ERROR = 2 << 30, 200 << 20


def checks() -> Iterator[Check]:
    """Yield the checks of this machine."""
    yield python_check(platform.python_version(), _own_metadata("Requires-Python"))
    yield packages_check(_requirements(), _version)
    yield processor_check(_cpu_flags(), len(os.sched_getaffinity(0)), cpu_quota())
    gpus = driver_gpus()
    if gpus:
        yield gpu_check(gpus, os.environ.get("CUDA_VISIBLE_DEVICES"), torch_gpus())
    yield memory_check(available_memory())
    folder = tempfile.gettempdir()
    yield room_check("temporary folder", folder, shutil.disk_usage(folder).free, _TEMP_WARN, _TEMP_ERROR)


def _own_metadata(key: str) -> str | None:
    try:
        value: str | None = metadata.metadata("rayft").json.get(key.lower().replace("-", "_"))  # type: ignore[assignment]
    except metadata.PackageNotFoundError:
        return None
    return value


def _requirements() -> list[str] | None:
    try:
        return metadata.requires("rayft") or []
    except metadata.PackageNotFoundError:
        return None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def python_check(version: str, required: str | None) -> Check:
    """Compare a Python version with a specifier such as `>=3.11`."""
    from packaging.specifiers import SpecifierSet

    if required and version not in SpecifierSet(required, prereleases=True):
        return Check(
            "Python", "error", f"{version}; rayft needs {required}", "Make an environment with a newer Python."
        )
    return Check("Python", "ok", version)


def packages_check(required: Sequence[str] | None, version_of: Callable[[str], str | None]) -> Check:
    """Compare installed packages with requirements as in a package's metadata, extras left out."""
    from packaging.requirements import Requirement

    if required is None:
        return Check(
            "packages", "warn", "rayft runs from a folder; versions are not compared", "Install it: pip install rayft"
        )
    wrong: list[str] = []
    pins: list[str] = []
    for text in required:
        need = Requirement(text)
        if need.marker is not None and not need.marker.evaluate({"extra": ""}):
            continue
        found = version_of(need.name)
        if found is None or not need.specifier.contains(found, prereleases=True):
            wrong.append(f"{need.name} {found or 'is missing'} (needs {need.specifier})")
            pins.append(f'"{need.name}{need.specifier}"')
    if wrong:
        return Check("packages", "error", "; ".join(wrong), f"pip install {' '.join(pins)}")
    shown = ", ".join(f"{name} {version_of(name)}" for name in ("torch", "ray", "pyarrow", "transformers"))
    return Check("packages", "ok", shown)


def _cpu_flags() -> set[str]:
    try:
        match = re.search(r"^(?:flags|Features)\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        return set()
    return set(match[1].split()) if match else set()


def cpu_quota() -> float | None:
    """Return the cores that a container may use at a time, None if there is no such limit."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return None


def processor_check(flags: set[str], cores: int, quota: float | None) -> Check:
    """Tell what the processor can do and which engine `auto` would take here."""
    from rayft.model.checkpoint import load_checkpoint
    from rayft.model.engine import resolve_engine

    engine = resolve_engine(model=load_checkpoint(None).config)
    known = [name for name in _FEATURES if name in flags]
    finding = (
        f"{cores} cores, {', '.join(known) or 'no vector extensions that matter'}; "
        f"auto takes {engine.backend} {engine.precision} on {engine.device}"
    )
    if quota is not None and quota < cores:
        threads = max(1, int(quota))
        return Check(
            "processor", "warn", f"{finding}; the container may use {quota:g} of the cores", f"Use --threads {threads}."
        )
    if platform.machine() in ("x86_64", "AMD64") and "avx2" not in flags and engine.device == "cpu":
        return Check("processor", "warn", finding, "Expect a few reviews a second; take a machine with AVX2 or a GPU.")
    return Check("processor", "ok", finding)


def driver_gpus() -> int:
    """Count the GPUs that the NVIDIA driver shows."""
    return sum(1 for path in Path("/dev").glob("nvidia*") if re.fullmatch(r"nvidia\d+", path.name))


def torch_gpus() -> int | str:
    """Count the GPUs that torch can use, or return why it cannot."""
    try:
        import torch

        if torch.version.cuda is None:
            return f"torch {torch.__version__} is built without CUDA"
        return torch.cuda.device_count() if torch.cuda.is_available() else "torch cannot use the driver"
    except (ImportError, OSError, RuntimeError) as error:
        return one_line(error)


def gpu_check(driver: int, visible: str | None, torch: int | str) -> Check:
    """Compare the GPUs of the driver with those of torch.

    Args:
        visible: CUDA_VISIBLE_DEVICES, if it is set.
        torch: how many it sees, or why none.
    """
    if visible is not None and visible.strip() in ("", "-1"):
        return Check("GPU", "warn", f"{driver} hidden by CUDA_VISIBLE_DEVICES", "Unset it to score on the GPU.")
    if isinstance(torch, str):
        return Check(
            "GPU", "error", f"the driver shows {driver}, but {torch}", "Install a CUDA build of torch, or --device cpu."
        )
    expected = driver if visible is None else len(visible.split(","))
    if torch < expected:
        return Check(
            "GPU", "error", f"the driver shows {driver}, torch sees {torch}", "See nvidia-smi and the CUDA version."
        )
    return Check("GPU", "ok", f"{torch} usable")


def available_memory() -> int:
    """Return the bytes that can be had: what the machine has free, or a container's limit leaves."""
    fields = dict(re.findall(r"^(\w+):\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE))
    available = int(fields.get("MemAvailable", 0)) << 10
    group = Path("/sys/fs/cgroup")
    try:
        left = int((group / "memory.max").read_text()) - int((group / "memory.current").read_text())
        # Cached files count as used there and give way.
        cached = dict(re.findall(r"^(\w+) (\d+)$", (group / "memory.stat").read_text(), re.MULTILINE))
        return min(available, left + int(cached.get("inactive_file", 0)))
    except (OSError, ValueError):
        return available


def memory_check(available: int) -> Check:
    """Judge the free memory in bytes."""
    finding = f"{size(available)} available"
    if available < _MEMORY_ERROR:
        return Check("memory", "error", finding, "Scoring needs about 1 GiB; end other programs.")
    if available < _MEMORY_WARN:
        return Check("memory", "warn", finding, "Enough for one process; end other programs before you use Ray.")
    return Check("memory", "ok", finding)


def room_check(name: str, place: str, free: int, warn: int, error: int) -> Check:
    """Judge the free disk space of a place, all in bytes."""
    finding = f"{place}: {size(free)} free"
    mend = "Make room, or set TMPDIR to a larger disk." if name == "temporary folder" else "Make room there."
    status = "error" if free < error else "warn" if free < warn else "ok"
    return Check(name, status, finding, "" if status == "ok" else mend)  # type: ignore[arg-type]
