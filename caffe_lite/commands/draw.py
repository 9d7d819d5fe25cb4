"""Draw a net: layers, blobs and what reads what."""

from __future__ import annotations

from typing import Any

EXAMPLES = """examples:
  caffe-lite draw deploy.prototxt -o net.svg
  caffe-lite draw models/VGG16/train.prototxt -o vgg16.png --rankdir LR
  caffe-lite draw train_val.prototxt -o train.svg --phase TRAIN --lr

The ending says how: .svg, .png, .pdf, .jpg, or .dot for GraphViz, which is not needed for the others.
"""

ALIASES = ("draw_net",)


def add_arguments(parser: Any) -> None:
    parser.add_argument("net", metavar="NET.prototxt", help="of any age")
    parser.add_argument("-o", "--out", required=True, metavar="FILE", help="drawing to write")
    parser.add_argument(
        "--rankdir", choices=("TB", "BT", "LR", "RL"), default="TB", help="direction of the arrows (default: TB)"
    )
    parser.add_argument("--phase", choices=("TRAIN", "TEST"), help="only the layers of this phase (default: all)")
    parser.add_argument("--lr", action="store_true", help="show lr_mult of each layer")


def run(args: Any) -> None:
    import caffe_lite
    from caffe_lite import draw, models, prototxt

    param, _ = prototxt.read_net(models.resolve(args.net))
    phase = getattr(caffe_lite, args.phase) if args.phase else None
    draw.draw_net_to_file(param, args.out, args.rankdir, phase, args.lr)
    print(f"wrote {args.out}: {param.name or 'net'}")
