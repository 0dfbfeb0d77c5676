"""placeholder (lead)"""
from typing import Any
import pickle
def refuse_inside_main_load() -> None: pass
def request(fn: Any, args: Any) -> tuple[str, bytes]: return f"{fn.__module__}:{fn.__qualname__}", pickle.dumps((args, {}))
def loads(v: Any, command: str) -> Any: return pickle.loads(v)
def main_path() -> "str | None": return None
