"""Classify images: the best classes on the terminal, all predictions as .npy."""

from __future__ import annotations

from typing import Any

from caffe_lite.commands._images import add_preparation_options, build, integers, preparation
from caffe_lite.console import positive

EXAMPLES = """examples:
  caffe-lite classify cat.jpg cat.npy --pretrained_model bvlc_reference_caffenet.caffemodel --labels synset_words.txt
  caffe-lite classify photos/ photos.npy --pretrained_model my.caffemodel --model_def deploy.prototxt --ext png
  caffe-lite classify digits.npy out.npy --pretrained_model lenet.caffemodel --model_def lenet.prototxt \\
      --images_dim 28,28 --center_only --mean_file '' --channel_swap '' --raw_scale 0.00390625

INPUT is an image, a folder or a .npy of images (N, H, W, C); OUTPUT gets one row of predictions an image,
those of a folder in the order of file names. Predictions are means over ten crops: corners, centre, and
their mirror images.
"""
OWN_QUIET = True


def add_arguments(parser: Any) -> None:
    parser.add_argument("input_file", metavar="INPUT", help="an image, a folder of images, or a .npy")
    parser.add_argument("output_file", metavar="OUTPUT", help="predictions, .npy (images, classes)")
    parser.add_argument("--center_only", action="store_true", help="the centre crop alone, not the mean of ten")
    parser.add_argument(
        "--images_dim", type=integers, default=(256, 256), metavar="H,W",
        help="size of images before crops are taken (default: 256,256; '': the net's input)",
    )  # fmt: skip
    parser.add_argument("--ext", default="jpg", metavar="EXT", help="ending of the files of a folder (default: jpg)")
    parser.add_argument("--labels", metavar="FILE", help="names of the classes, one a line")
    parser.add_argument(
        "--top", type=positive, default=5, metavar="N", help="classes shown for each image (default: 5)"
    )
    add_preparation_options(parser)


def run(args: Any) -> None:
    import math
    import time

    import numpy as np

    from caffe_lite.atomic import atomic_write
    from caffe_lite.classification import ImageInputs, classify, read_labels
    from caffe_lite.classifier import Classifier
    from caffe_lite.errors import DataError
    from caffe_lite.progress import progress_bar

    if args.images_dim is not None and len(args.images_dim) != 2:
        raise DataError(f"--images_dim: expected height and width, such as 256,256, got {args.images_dim}")
    classifier = build(Classifier, args, image_dims=args.images_dim, **preparation(args))
    images = ImageInputs(args.input_file, args.ext, color=classifier.blobs[classifier.inputs[0]].shape[1] == 3)
    if not args.quiet:
        print(f"Classifying {len(images)} inputs.")
    of_image = classifier.blobs[classifier.outputs[0]].shape[1:]
    labels = read_labels(args.labels, math.prod(of_image)) if args.labels else None
    start = time.perf_counter()
    with progress_bar(total=len(images), desc="classify", unit="image", disable=args.quiet or len(images) == 1) as bar:
        predictions = classify(classifier, images, not args.center_only, bar.update)
    seconds = time.perf_counter() - start
    out = args.output_file if args.output_file.endswith(".npy") else f"{args.output_file}.npy"
    with atomic_write(out) as stream:
        np.save(stream, predictions, allow_pickle=False)
    if not args.quiet:
        print(f"Done in {seconds:.2f} s.")
        _print_best(images.names, predictions.reshape(len(predictions), -1), labels, args.top)
        print(f"Saving results into {out}")


def _print_best(names: list[str], predictions: Any, labels: list[str] | None, top: int) -> None:
    from caffe_lite.classification import best_classes

    for name, of_image in zip(names, predictions, strict=True):
        print(f"\n{name}")
        for value, label in best_classes(of_image, labels, top):
            print(f"  {value:7.4f}  {label}")
    print()
