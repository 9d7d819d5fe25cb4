"""The console script ``fast-rcnn``: flags as the original tools', one module of ``commands`` each."""

import sys

from caffe_lite.console import Console

console = Console(
    "fast-rcnn",
    "Fast R-CNN from prototxt: train, test, detect. 'fast-rcnn demo' shows all of it.",
    "caffe_lite.fast_rcnn.commands",
    separator="-",
)
main = console.main

if __name__ == "__main__":
    sys.exit(main())
