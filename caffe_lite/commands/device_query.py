"""Show what the GPUs are, or why none can be used."""

from __future__ import annotations

from typing import Any

EXAMPLES = """examples:
  caffe-lite device_query
  caffe-lite device_query --gpu 0,1
"""

_ROWS = (  # title, names of the fields in CUDA's cudaDeviceProp
    ("Major revision number", "major"),
    ("Minor revision number", "minor"),
    ("Name", "name"),
    ("Total global memory", "totalGlobalMem"),
    ("Total shared memory per block", "sharedMemPerBlock"),
    ("Total registers per block", "regsPerBlock"),
    ("Warp size", "warpSize"),
    ("Maximum memory pitch", "memPitch"),
    ("Maximum threads per block", "maxThreadsPerBlock"),
    ("Maximum dimension of block", "maxThreadsDim"),
    ("Maximum dimension of grid", "maxGridSize"),
    ("Clock rate", "clockRate"),
    ("Total constant memory", "totalConstMem"),
    ("Texture alignment", "textureAlignment"),
    ("Concurrent copy and execution", "asyncEngineCount"),
    ("Number of multiprocessors", "multiProcessorCount"),
    ("Kernel execution timeout", "kernelExecTimeoutEnabled"),
)
_YES_OR_NO = ("asyncEngineCount", "kernelExecTimeoutEnabled")


def add_arguments(parser: Any) -> None:
    parser.add_argument("--gpu", "-gpu", default="all", metavar="N[,N...]", help="device numbers (default: all)")


def run(args: Any) -> None:
    from caffe_lite import device
    from caffe_lite.errors import DeviceError

    count = device.gpu_count()
    if args.gpu == "all":
        chosen = list(range(count))
    elif all(part.strip().isdigit() for part in args.gpu.split(",")):
        chosen = [int(part) for part in args.gpu.split(",")]
    else:
        raise DeviceError(f"--gpu {args.gpu}: expected device numbers with commas between them, or all")
    for index in chosen:
        properties = device.gpu_properties(index)
        print(f"{'Device id:':31}{index}")
        for title, name in _ROWS:
            if name in properties:
                print(f"{title + ':':31}{_text(name, properties[name])}")


def _text(name: str, value: Any) -> str:
    if name in _YES_OR_NO:
        return "Yes" if value else "No"
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return ", ".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)
