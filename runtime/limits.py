"""What each worker may use of the machine. The kernel keeps it, whatever the worker does."""

from __future__ import annotations

import msgspec

from remuda.statemachines.policy import check_int

__all__ = ["LEAST_FILES", "LEAST_MEMORY", "Limits"]

LEAST_MEMORY = 64 * 1024 * 1024
"""A bare worker of Python 3.11 has 20 MiB of address space; a thread takes 8 for its stack."""

LEAST_FILES = 32
"""A worker has six descriptors of its own; the import of a package opens a few, one at a time."""


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one worker may use. None leaves it as the application has it.

    What a worker starts has the same limits, each process for itself.

    Args:
        memory: bytes of address space (RLIMIT_AS), at least 64 MiB. Beyond it, Python raises
            `MemoryError`; C code may die. Address space is more than what is resident: see
            docs/limits.md for what to ask for.
        cpu: seconds of CPU time in the worker's whole life (RLIMIT_CPU), at least 1. When they are
            used up it dies with SIGXCPU, after it has written its Python stack to stderr.
        files: descriptors that it may have open (RLIMIT_NOFILE), at least 32. Beyond it, opening
            one raises `OSError` (EMFILE).
        nice: how readily it gives way to others, from 0 to 19 (not at all). It is not added to the
            application's own, and only a privileged application can have workers below that.

    Raises:
        ConfigError: a value is not allowed.
    """

    memory: int | None = None
    cpu: int | None = None
    files: int | None = None
    nice: int | None = None

    def __post_init__(self) -> None:
        for name, least, most in _RANGES:
            value = getattr(self, name)
            if value is not None:
                check_int("Limits", name, value, least, most)

    @property
    def told(self) -> dict[str, int]:
        """Those that are set, by name, as the worker is told."""
        values = ((name, getattr(self, name)) for name in self.__struct_fields__)
        return {name: value for name, value in values if value is not None}


_RANGES = (
    ("memory", LEAST_MEMORY, 2**62),
    ("cpu", 1, 2**31),
    ("files", LEAST_FILES, 2**31 - 1),
    ("nice", 0, 19),
)
"""The upper bounds are what every system can be asked for; RLIM_INFINITY is beyond them."""
