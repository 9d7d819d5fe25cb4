# The classes are made at import from caffe.proto; a checker takes any of their names as Any.
from typing import Any

DESCRIPTOR: Any

def __getattr__(name: str) -> Any: ...
