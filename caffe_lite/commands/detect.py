"""Run a classification net on windows of images, as R-CNN does; for Fast R-CNN see fast-rcnn detect."""

from __future__ import annotations

from typing import Any

from caffe_lite.commands._images import add_preparation_options, build, preparation

EXAMPLES = """examples:
  caffe-lite detect images.txt detections.h5 --model_def rcnn_deploy.prototxt --pretrained_model rcnn.caffemodel
  caffe-lite detect windows.csv detections.csv --crop_mode list --pretrained_model rcnn.caffemodel --context_pad 0

INPUT is a .txt with the path of an image on each line, or a .csv with the columns filename, ymin, xmin,
ymax, xmax, which --crop_mode list needs. OUTPUT is a .csv with these columns and class0, class1, ..., or
an .h5 with the datasets filename, window and prediction.
"""
OWN_QUIET = True


def add_arguments(parser: Any) -> None:
    parser.add_argument("input_file", metavar="INPUT", help=".txt of images or .csv of windows")
    parser.add_argument("output_file", metavar="OUTPUT", help="detections, .h5 or .csv")
    parser.add_argument(
        "--crop_mode", choices=("list", "selective_search"), default="selective_search",
        help="the windows of INPUT, or those of selective search (default)",
    )  # fmt: skip
    parser.add_argument(
        "--context_pad", type=int, default=16, metavar="N",
        help="pixels of the net's input that show what is around the window (default: 16)",
    )  # fmt: skip
    add_preparation_options(parser)


def run(args: Any) -> None:
    import time

    from caffe_lite import windows
    from caffe_lite.detector import Detector
    from caffe_lite.errors import DataError
    from caffe_lite.progress import progress_bar

    say = (lambda *_: None) if args.quiet else print
    windows.check_output(args.output_file)
    lower = args.input_file.lower()
    if not lower.endswith(".csv" if args.crop_mode == "list" else (".csv", ".txt")):
        raise DataError(f"{args.input_file}: --crop_mode {args.crop_mode} takes a .csv or, without windows, a .txt")
    detector = build(Detector, args, **preparation(args, mean_of_channels=True), context_pad=args.context_pad)
    say("Loading input...")
    start = time.perf_counter()
    detections: list[dict[str, Any]] = []
    inputs: list[Any]
    if args.crop_mode == "list":
        inputs, run_net = windows.read_windows(args.input_file), detector.detect_windows
    else:
        inputs, run_net = windows.read_image_names(args.input_file), detector.detect_selective_search
    for image in progress_bar(inputs, desc="detect", unit="image", disable=args.quiet):
        detections += run_net([image])
    say(f"Processed {len(detections)} windows in {time.perf_counter() - start:.3f} s.")
    windows.write_detections(args.output_file, detections)
    say(f"Saved to {args.output_file}")
