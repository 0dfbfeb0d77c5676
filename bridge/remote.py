"""placeholder (lead)"""
from typing import Any
from remuda.statemachines.errors import RemoteError
def rebuild(f: Any) -> RemoteError:
    e = RemoteError(f"{f.type_name}: {f.message}"); e.type_name=f.type_name; return e
def describe(e: BaseException) -> Any:
    from remuda.bridge.messages import RemoteFailure
    return RemoteFailure(type_name=type(e).__name__, message=str(e))
