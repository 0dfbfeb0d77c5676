"""The journal: what every worker has to be told again.

Some commands leave something behind in the worker that did them: a program was created, a model
configured. `@remuda.command(journal=…)` says so, and then the application keeps each such call once
it has succeeded, and repeats it in every other worker before that one's next call, and in every new
generation before its first.

    an entry       the latest successful call for a key. The key is the value of the argument that
                   `journal` names; with `journal=True` the command itself.
    a tombstone    what an entry turns into when a command with `forgets` takes it back: the call to
                   take it back, for those workers that have it. Gone when none has it any more.

A changed entry keeps its place, because later ones may build on it. What a worker has done is told
by version, so that a worker that did the call itself, or was in the middle of being told, is not
told twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from remuda.bridge.messages import CommandInfo, encode

__all__ = ["Applied", "Entry", "Journal"]

Key: TypeAlias = tuple[str, bytes]


class Entry:
    """One call to repeat.

    Attributes:
        command, args: the call.
        key: what it is about.
        version: when it was recorded.
        is_tombstone: whether it takes something back.
    """

    __slots__ = ("args", "command", "is_tombstone", "key", "version")

    def __init__(self, command: str, args: Any, key: Key, version: int, *, is_tombstone: bool) -> None:
        self.command = command
        self.args = args
        self.key = key
        self.version = version
        self.is_tombstone = is_tombstone


class Applied:
    """What one worker has been told, by key: the versions."""

    __slots__ = ("told", "versions")

    def __init__(self) -> None:
        self.versions: dict[Key, int] = {}
        self.told: set[Key] = set()
        """Keys it has been sent something for; it may have done it, though nobody knows yet."""

    def note(self, entry: Entry) -> None:
        """It has done this."""
        self.versions[entry.key] = entry.version
        self.told.add(entry.key)


class Journal:
    """The calls to repeat in the workers of one pool.

    Attributes:
        version: grows with every change.
    """

    def __init__(self) -> None:
        self.version = 0
        self._entries: dict[Key, Entry] = {}
        self._workers: list[Applied] = []

    def __len__(self) -> int:
        return sum(not entry.is_tombstone for entry in self._entries.values())

    def add_worker(self) -> Applied:
        """A new worker, which has been told nothing."""
        applied = Applied()
        self._workers.append(applied)
        return applied

    def forget_worker(self, applied: Applied) -> None:
        """A worker is gone, and what it was told with it."""
        if applied in self._workers:
            self._workers.remove(applied)
            self._bury()

    def record(self, info: CommandInfo, command: str, args: Any) -> Entry | None:
        """Keep a call that has succeeded, if its command says so.

        Args:
            info: what is declared about the command.
            command, args: the call.

        Returns:
            The entry. Whoever did the call notes that its worker has it.
        """
        if info.forgets is not None:
            key = (info.forgets, _value(args, info.forgets, info.key_at))
            forgotten = self._entries.get(key)
            if forgotten is None or forgotten.is_tombstone:
                return forgotten  # two workers took it back at the same time: nobody has to do it again
        elif isinstance(info.journal, str):
            key = (info.journal, _value(args, info.journal, info.key_at))
        elif info.journal:
            key = ("", command.encode())
        else:
            return None
        self.version += 1
        entry = Entry(command, args, key, self.version, is_tombstone=info.forgets is not None)
        before = self._entries.get(key)
        if before is not None and before.is_tombstone:
            del self._entries[key]  # it is created anew, after all that is there now
        self._entries[key] = entry
        return entry

    def missing(self, applied: Applied) -> Sequence[Entry]:
        """What a worker has to be told, in order. It counts as told from here on."""
        self._bury()
        entries = [
            entry
            for entry in self._entries.values()
            if applied.versions.get(entry.key) != entry.version
            and not (entry.is_tombstone and entry.key not in applied.told)
        ]
        applied.told.update(entry.key for entry in entries)
        return entries

    def _bury(self) -> None:
        """Drop the tombstones that no worker needs any more."""
        for key, entry in list(self._entries.items()):
            if entry.is_tombstone:
                for applied in self._workers:
                    if applied.versions.get(key) == entry.version:
                        applied.told.discard(key)
                        del applied.versions[key]
                if not any(key in applied.told for applied in self._workers):
                    del self._entries[key]


def _value(args: Any, name: str, position: int | None) -> bytes:
    """The value of an argument, in a form that can be compared. Left out, it is like None."""
    if isinstance(args, dict):
        value = args.get(name)
    elif position is not None and position < len(args):
        value = args[position]
    else:
        value = None
    return encode(value)
