"""placeholder (lead)"""
from __future__ import annotations
from typing import Any
class Entry:
    def __init__(self, command: str, args: Any, key: Any, version: int) -> None:
        self.command=command; self.args=args; self.key=key; self.version=version
class Applied:
    def __init__(self) -> None: self.by: dict[Any,int]={}
    def note(self, e: Entry) -> None: self.by[e.key]=e.version
class Journal:
    def __init__(self) -> None: self.version=0; self.e: dict[Any, Entry]={}
    def record(self, info: Any, command: str, args: Any) -> Entry|None:
        self.version+=1; k=(info.journal, args.get(info.journal)); en=Entry(command,args,k,self.version); self.e.pop(k,None); self.e[k]=en; return en
    def missing(self, a: Applied) -> list[Entry]: return [e for e in self.e.values() if a.by.get(e.key)!=e.version]
    def forget_worker(self, a: Applied) -> None: pass
