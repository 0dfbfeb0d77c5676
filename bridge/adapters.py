"""placeholder (lead)"""
from typing import Any
def command_name(fn: Any) -> str: return str(fn.__name__)
def reference_to(a: Any) -> str: return a if isinstance(a, str) else f"{a.__module__}:{a.__qualname__}"
