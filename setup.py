"""Packaging: the top-level rooms become subpackages of caffe_lite (see README, "Layout")."""

from pathlib import Path

from setuptools import setup

ROOMS = ("layers", "solvers", "data", "models")


def room_packages(room: str) -> dict[str, str]:
    """Every package below ``room``: its import name and its folder."""
    folders = [Path(room), *(p.parent for p in Path(room).rglob("__init__.py"))]
    return {"caffe_lite." + ".".join(folder.parts): folder.as_posix() for folder in folders}


package_dir = {
    "caffe_lite": "caffe_lite",
    "caffe_lite.proto": "caffe_lite/proto",
    "caffe_lite.commands": "caffe_lite/commands",
    "caffe_lite.export": "caffe_lite/export",
    "caffe_lite.fast_rcnn": "caffe_lite/fast_rcnn",
    "caffe_lite.fast_rcnn.commands": "caffe_lite/fast_rcnn/commands",
    "caffe_lite.fast_rcnn.experiments": "caffe_lite/fast_rcnn/experiments",
    "caffe_lite.fast_rcnn.rcnn": "caffe_lite/fast_rcnn/rcnn",
    "caffe_lite.fast_rcnn.sppnet": "caffe_lite/fast_rcnn/sppnet",
}
for room in ROOMS:
    package_dir.update(room_packages(room))

setup(
    name="caffe-lite",
    version="0.1.0",
    description="Caffe's nets and solvers in Python, and Fast R-CNN on top of them",
    long_description=Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="BSD-2-Clause",
    license_files=["LICENSE"],
    python_requires=">=3.10",
    packages=sorted(package_dir),
    package_dir=package_dir,
    package_data={
        "caffe_lite": ["*.cu", "*.cuh", "py.typed"],
        "caffe_lite.proto": ["*.proto", "*.pyi"],
        "caffe_lite.layers": ["*.cu"],
        "caffe_lite.models": ["**/*.prototxt", "**/*.yml", "**/*.json"],
    },
    include_package_data=False,
    install_requires=[
        "numpy>=1.26",  # every blob is a numpy array
        "scipy>=1.11",  # sparse gt_overlaps, .mat proposals, the eigenvectors of truncated SVD
        "numba>=0.59",  # the CPU kernels
        "protobuf>=4.25,<8",  # Caffe's messages, text and binary
        "opencv-contrib-python-headless>=4.8",  # images; selective search; needs no display libraries
        "lmdb>=1.4",  # the Data layer's databases
        "h5py>=3.10",  # HDF5Data, HDF5Output
        "pyyaml>=6",  # cfg files and param_str, by the safe loader only
        "threadpoolctl>=3.2",  # one setting for the threads of every BLAS that is loaded
        "tqdm>=4.64",  # progress bars
        "matplotlib>=3.7",  # the loss curve that training draws
    ],
    extras_require={
        # GPU kernels, compiled at first use. ctk: NVRTC and cuBLAS, which a machine with only a driver lacks
        "cuda12": ["cupy-cuda12x[ctk]>=14"],
        "cuda13": ["cupy-cuda13x[ctk]>=14"],
        "leveldb": ["plyvel>=1.5"],  # the Data layer's older databases; needs the LevelDB library
        "onnx": ["onnx>=1.16", "onnxruntime>=1.18"],  # export, and running what was exported
        "docs": ["pdoc>=14"],  # the site: tutorials and the reference
        "safetensors": ["safetensors>=0.4"],  # weights to and from other frameworks
        "svm": ["scikit-learn>=1.3"],  # LinearSVC, which train-svms fits the heads with
        "coco": ["pycocotools>=2.0.7"],  # COCO's annotations and its average precision
        "completion": ["shtab>=1.6"],  # shell completion scripts for the two commands
        "test": [
            "pytest>=8",
            "pytest-xdist>=3.5",
            "hypothesis>=6.90",
            "onnx>=1.16",
            "onnxruntime>=1.18",
            "pycocotools>=2.0.7",
            "safetensors>=0.4",
            "scikit-learn>=1.3",
            "shtab>=1.6",
            "nbclient>=0.8",
            "nbformat>=5.7",
            "ipykernel>=6.20",
            "nvidia-cuda-nvrtc-cu12; sys_platform == 'linux'",  # compiles the kernels for every target, without a GPU
        ],
        "dev": ["ruff>=0.6", "mypy>=1.11", "types-PyYAML", "types-protobuf", "types-tqdm", "build>=1.2"],
    },
    entry_points={
        "console_scripts": ["caffe-lite = caffe_lite.cli:main", "fast-rcnn = caffe_lite.fast_rcnn.cli:main"],
    },
    classifiers=[
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
)
