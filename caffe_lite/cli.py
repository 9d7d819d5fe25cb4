"""The console script ``caffe-lite``: tools for nets in prototxt, one module of ``commands`` each."""

import sys

from caffe_lite.console import Console

console = Console("caffe-lite", "Tools for Caffe nets in prototxt.", "caffe_lite.commands")
main = console.main

if __name__ == "__main__":
    sys.exit(main())
