"""Train SVMs on a network's features and put them in the place of its softmax classifier."""

from __future__ import annotations

import os
from typing import Any

from caffe_lite.fast_rcnn.commands._options import add_settings, load_test_net, seed_everything, set_up

EXAMPLES = """examples:
  fast-rcnn train-svms --def models/VGG16/test.prototxt --cfg models/cfgs/svm.yml --data ~/data \\
      --net output/default/voc_2007_trainval/vgg16_fast_rcnn_iter_40000.caffemodel
  fast-rcnn test-net --def models/VGG16/test.prototxt --cfg models/cfgs/svm.yml --data ~/data \\
      --net output/default/voc_2007_trainval/vgg16_fast_rcnn_iter_40000_svm.caffemodel

Writes NET_svm.caffemodel beside the weights; test it with TEST.SVM True. Needs scikit-learn:
pip install 'caffe-lite[svm]'
"""


def add_arguments(parser: Any) -> None:
    parser.add_argument("--def", required=True, dest="prototxt", metavar="FILE", help="test.prototxt")
    parser.add_argument("--net", required=True, metavar="FILE", help="weights, a .caffemodel")
    parser.add_argument(
        "--imdb", default="voc_2007_trainval", metavar="NAME", help="dataset (default: voc_2007_trainval)"
    )
    parser.add_argument("--data", metavar="DIR", help="folder that holds VOCdevkit2007 (default: $CAFFE_LITE_DATA)")
    parser.add_argument("--out", metavar="DIR", help="output folder (default: that of --net)")
    add_settings(parser)


def run(args: Any) -> None:
    set_up(args)
    from caffe_lite.data.config import cfg
    from caffe_lite.data.factory import get_imdb
    from caffe_lite.fast_rcnn.report import table
    from caffe_lite.fast_rcnn.svm import SVMTrainer
    from caffe_lite.fast_rcnn.test import make_output_dir

    seed_everything()
    out = make_output_dir(args.out or os.path.dirname(args.net) or os.curdir)
    net = load_test_net(args)
    imdb = get_imdb(args.imdb, data=args.data)
    if cfg.TRAIN.USE_FLIPPED:
        imdb.append_flipped_images()
    trainer = SVMTrainer(net, imdb)
    print(f"blob {trainer.blob}: features scaled by {trainer.feature_scale:.4f}", flush=True)
    trainer.train()
    rows = [("class", "positives", "negatives kept", "trained", "objective")]
    for svm in trainer.trainers[1:]:
        value = f"{svm.history[-1].total:.4f}" if svm.history else "-"
        rows.append((svm.name, str(svm.num_pos), str(svm.num_neg), str(len(svm.history)), value))
    print(table(rows))
    path = os.path.join(out, f"{net.name}_svm.caffemodel")
    net.save(path)
    print(f"wrote {path}")
