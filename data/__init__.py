"""Data of caffe_lite: images, boxes and their evaluation, from the files on disk to the blobs of a net.

imdb and roidb of Fast R-CNN, region proposals, box arithmetic, minibatch sampling (RoIDataLayer),
non-maximum suppression and VOC evaluation. Import the module you need; this one imports nothing.
"""
