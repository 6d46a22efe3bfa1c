"""Describe the machine: a name for the files (never the host's), and facts to compare figures."""

import platform
import re
import shutil
import subprocess
from pathlib import Path

import torch

CPUINFO = Path("/proc/cpuinfo")

NOISE = re.compile(r"\((?:r|tm|c)\)|\bcpu\b|\bprocessor\b|@.*|\bwith\b.*|\b\d+-core\b", re.IGNORECASE)
"""Words of vendors around a chip's name."""

UNITS = ("amx_bf16", "amx_int8", "avx512_bf16", "avx512_vnni", "avx512f", "avx2", "bf16", "i8mm")
"""Instruction sets that decide how fast a network is, by the kernel's names for them."""


def cpu_name() -> str:
    """Return the CPU's name as the system reports it, e.g. "Intel(R) Xeon(R) Processor"."""
    if CPUINFO.is_file():
        found = re.search(r"^model name\s*:\s*(.+)$", CPUINFO.read_text(encoding="utf-8", errors="replace"), re.M)
        if found:
            return found[1].strip()
    if (sysctl := shutil.which("sysctl")) and platform.system() == "Darwin":
        words = [sysctl, "-n", "machdep.cpu.brand_string"]
        done = subprocess.run(words, capture_output=True, text=True, check=False)  # noqa: S603
        if done.returncode == 0 and done.stdout.strip():
            return done.stdout.strip()
    return platform.machine() or "unknown"


def cpu_units() -> list[str]:
    """Return the instruction sets of `UNITS` that the CPU has; none if the system does not list them."""
    if not CPUINFO.is_file():
        return []
    text = CPUINFO.read_text(encoding="utf-8", errors="replace")
    found = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", text, re.M)
    flags = set(found[1].split()) if found else set()
    return [unit for unit in UNITS if unit in flags]


def slug(name: str, *, units: list[str], threads: int | None) -> str:
    """Return a short name for files, e.g. "intel-xeon-amx-2-cores".

    Args:
        name: name of the CPU or GPU.
        units: matrix units: AMX is part of the name, because vendors sell chips with and without it under one name.
        threads: threads of the CPU; None for a GPU.
    """
    short = re.sub(r"[^a-z0-9]+", "-", NOISE.sub(" ", name).lower()).strip("-") or "unknown"
    words = [short, *(["amx"] if any(unit.startswith("amx") for unit in units) else [])]
    if threads is not None:
        words.append("1-core" if threads == 1 else f"{threads}-cores")
    return "-".join(words)


def machine_slug(device: torch.device, threads: int) -> str:
    """Return the name for the files of this machine's measurements on a device."""
    if device.type == "cuda":
        return slug(torch.cuda.get_device_name(device), units=[], threads=None)
    name = slug(cpu_name(), units=cpu_units(), threads=threads)
    return name if device.type == "cpu" else f"{name}-{device.type}"


def describe(device: torch.device, threads: int) -> list[str]:
    """Return lines that describe the machine."""
    units = ", ".join(cpu_units()) or "not listed by the system"
    lines = [f"CPU: {cpu_name()}, {threads} compute thread(s); instruction sets: {units}"]
    if device.type == "cuda":
        facts = torch.cuda.get_device_properties(device)
        lines.insert(0, f"GPU: {facts.name}, {facts.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}")
    elif device.type != "cpu":
        lines.insert(0, f"Device: {device.type}")
    lines.append(f"System: {platform.system()} {platform.machine()}")
    return lines
