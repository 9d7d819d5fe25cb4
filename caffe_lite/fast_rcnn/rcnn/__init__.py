"""R-CNN: what Fast R-CNN is compared with, on the same engine and the same data.

Girshick et al., Rich feature hierarchies (2014). Every proposal is cut out of the image, warped to the
net's input and classified by itself. Training has stages, each of which the next one waits for:

    finetune.py          the net classifies warped windows: WindowData, softmax
    features.py          features of all regions of the training images, kept on disk (feature_cache.py)
    bbox_regression.py   a ridge regression for each class on the pooled features
    region_model.py      those with a linear SVM for each class on the last features; testing
    pipeline.py          all of it: train(imdb, folder) -> RegionModel, test(model, imdb) -> DetectionRun

    from caffe_lite.fast_rcnn import rcnn
    model = rcnn.train(imdb, "output/rcnn")     # model.seconds: of each stage
    found = rcnn.test(model, test_imdb, "output/rcnn/test")     # found.aps, .all_boxes, .seconds: of each image

SPPnet (:mod:`caffe_lite.fast_rcnn.sppnet`) has other features and shares the stages behind them.
"""

from caffe_lite.fast_rcnn.rcnn.pipeline import load, train
from caffe_lite.fast_rcnn.rcnn.region_model import DetectionRun, RegionModel, test

__all__ = ["DetectionRun", "RegionModel", "load", "test", "train"]
