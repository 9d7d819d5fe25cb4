"""RoIDataLayer and what feeds it: roidb preparation and minibatch sampling of Fast R-CNN."""
