"""The rare events as log lines.

If the application has configured structlog, they go there, as events with keys. Otherwise they go to
the standard logger "remuda", which shows warnings and swallows the rest until somebody configures
it. remuda itself configures nothing. structlog is imported when the first line is written, so that
importing remuda stays cheap.

Levels: info for what is normal (a worker is ready, a worker wrote a line), warning for what somebody
should look at (a worker died, the pool is impaired), error for a pool that has failed, and for a rule that does not hold.
"""

from __future__ import annotations

import logging
import traceback
from contextlib import suppress
from typing import Any

from remuda.runtime.events import (
    Event,
    InvariantBroken,
    Observer,
    PoolChanged,
    TemplateChanged,
    TemplateWrote,
    WorkerEnded,
    WorkerReady,
    WorkerWrote,
)
from remuda.statemachines.template import CLOSING

__all__ = ["log_event", "log_observer_error"]

_POOL_LEVELS = {"impaired": logging.WARNING, "failed": logging.ERROR}


def log_event(event: Event) -> None:
    """Write the line for one of the rare events."""
    match event:
        case WorkerReady():
            facts = {"worker": f"{event.slot}.{event.generation}", "pid": event.pid, "seconds": event.seconds}
            _log(logging.INFO, "worker.ready", event.pool, facts)
        case WorkerWrote():
            facts = {"worker": f"{event.slot}.{event.generation}", "line": event.line}
            _log(logging.INFO, "worker.wrote", event.pool, facts)
        case WorkerEnded():
            level = logging.INFO if event.on_purpose else logging.WARNING
            facts = {
                "worker": f"{event.slot}.{event.generation}",
                "pid": event.pid,
                "cause": event.death.cause,
                "exit_status": event.death.exit_status,
                "cpu": event.death.cpu,
                "max_rss": event.death.max_rss,
            }
            _log(level, "worker.ended", event.pool, facts)
        case PoolChanged():
            level = _POOL_LEVELS.get(event.dest, logging.INFO)
            _log(level, f"pool.{event.dest}", event.pool, {"was": event.source, "reason": event.reason})
        case TemplateChanged():
            # To retire is in order if another takes over, or the pool closes; not if it could not import.
            failed = event.dest == "retiring" and event.source == "building" and event.reason != CLOSING
            died = event.dest == "ended" and event.source in ("building", "ready")
            unexpected = event.dest == "unfit" or failed or died
            level = logging.WARNING if unexpected else logging.INFO
            facts = {"template": event.number, "pid": event.pid, "was": event.source, "reason": event.reason}
            _log(level, f"template.{event.dest}", event.pool, facts)
        case TemplateWrote():
            _log(logging.INFO, "template.wrote", event.pool, {"template": event.number, "line": event.line})
        case InvariantBroken():
            facts = {"rule": event.name, "detail": event.detail, "count": event.count}
            _log(logging.ERROR, "invariant.broken", event.pool, facts)
        case _:
            pass


def log_observer_error(pool: str, observer: Observer | None, event: object, error: BaseException) -> None:
    """Say once that an observer raises; the pool counts the rest. Never raises.

    Args:
        pool: its name.
        observer: which one; None for the log, and for whoever asked the pool for something that cannot be.
        event: what it was told, or has asked for.
        error: what came of it. Of a log that fails it is said on stderr, as `logging` itself does.
    """
    facts: dict[str, Any] = {"observer": repr(observer), "of": type(event).__name__, "exc_info": error}
    try:
        _log(logging.ERROR, "observer.failed", pool, facts)
    except Exception:
        with suppress(Exception):
            traceback.print_exception(error)


def _log(level: int, name: str, pool: str, facts: dict[str, Any]) -> None:
    import structlog

    if structlog.is_configured():
        logger = structlog.get_logger("remuda")
        # Not its `log`: that is something else in some of structlog's wrappers.
        getattr(logger, logging.getLevelName(level).lower())(name, pool=pool, **facts)
        return
    plain = logging.getLogger("remuda")
    if plain.isEnabledFor(level):
        error = facts.pop("exc_info", None)
        text = " ".join(f"{key}={value!r}" for key, value in {"pool": pool, **facts}.items())
        plain.log(level, "%s %s", name, text, exc_info=error)
