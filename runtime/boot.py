"""What every worker is told first: to find things where the application finds them at this moment."""

from __future__ import annotations

import os
import sys

from remuda.bridge import functions, messages
from remuda.bridge.frames import HANDSHAKE_LIMIT, pack
from remuda.runtime.config import PoolConfig
from remuda.statemachines.errors import ConfigError, FrameTooLarge, SerializationError

__all__ = ["boot_frame", "boot_message"]


def boot_message(config: PoolConfig, adapter: str | None) -> messages.Boot:
    """The message; `adapter` is how a worker finds it, or None if it runs plain functions."""
    return messages.Boot(
        adapter=adapter,
        settings=config.settings,
        sys_path=[entry for entry in sys.path if isinstance(entry, str)],  # others are ignored when importing
        cwd=os.getcwd() if config.cwd is None else os.path.abspath(config.cwd),
        main_path=functions.main_path(),
        main_module=functions.main_module(),
        codec="pickle" if adapter is None else "msgpack",
        max_frame_bytes=config.max_frame_bytes,
        limits=config.limits.told,
    )


def boot_frame(boot: messages.Boot) -> bytes:
    """The same as a frame.

    Raises:
        ConfigError: something of it cannot be sent.
    """
    try:
        messages.encode((boot.sys_path, boot.cwd, boot.main_path))
    except SerializationError as error:
        raise ConfigError(
            f"the paths of this process cannot be told to a worker: {error.message}. The working directory, "
            "the script's path and each entry of sys.path must be valid UTF-8"
        ) from error
    try:
        return pack(messages.encode(boot), HANDSHAKE_LIMIT)
    except (SerializationError, FrameTooLarge) as error:
        raise ConfigError(
            f"PoolConfig.settings cannot be sent to a worker: {error.message}. Use plain data, or the path of a file",
            context={"field": "settings"},
        ) from error
