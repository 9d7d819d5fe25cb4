"""Fast R-CNN: training, testing, drawing, and the console script ``fast-rcnn``.

Girshick, Fast R-CNN (2015). Rounding, sampling and caps follow the original Python code; each
module says in a sentence where it differs. This package imports every room of caffe_lite and is
imported by none.
"""
