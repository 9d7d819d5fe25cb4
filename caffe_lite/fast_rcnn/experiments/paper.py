"""The numbers of Girshick, Fast R-CNN (2015), arXiv 1504.08083v2, as they stand in its tables and figures.

Keys "S", "M", "L" are the nets CaffeNet, VGG_CNN_M_1024 and VGG16. AP and mAP are percent; times are of a
Tesla K40, hours of training and seconds an image of testing, without the proposals.
"""

from __future__ import annotations

SMALL, MEDIUM, LARGE = "S", "M", "L"
ByNet = dict[str, float]

CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip


def _by_net(*values: float) -> ByNet:
    return dict(zip((SMALL, MEDIUM, LARGE), values, strict=True))


# Table 1: VOC 2007 test, trained on ... (L)
TABLE1_AP = {
    "07": (74.5, 78.3, 69.2, 53.2, 36.6, 77.3, 78.2, 82.0, 40.7, 72.7,
           67.9, 79.6, 79.2, 73.0, 69.0, 30.1, 65.4, 70.2, 75.8, 65.8),
    "07\\diff": (74.6, 79.0, 68.6, 57.0, 39.3, 79.5, 78.6, 81.9, 48.0, 74.0,
                 67.4, 80.5, 80.7, 74.1, 69.6, 31.8, 67.1, 68.4, 75.3, 65.5),
    "07+12": (77.0, 78.1, 69.3, 59.4, 38.3, 81.6, 78.6, 86.7, 42.8, 78.8,
              68.9, 84.7, 82.0, 76.6, 69.9, 31.8, 70.1, 74.8, 80.4, 70.4),
}  # fmt: skip
TABLE1_MAP = {"07": 66.9, "07\\diff": 68.1, "07+12": 70.0}
TABLE1_OTHERS = {"SPPnet BB (07\\diff)": 63.1, "R-CNN BB (07)": 66.0}

# Tables 2 and 3: VOC 2010 and 2012 test, trained on ... (L)
TABLE2_MAP = {"12": 66.1, "07++12": 68.8}
TABLE2_OTHERS = {"BabyLearning": 63.8, "R-CNN BB (12)": 62.9, "SegDeepM": 67.2}
TABLE3_MAP = {"12": 65.7, "07++12": 68.4}
TABLE3_OTHERS = {"BabyLearning": 63.2, "NUS_NIN_c2000": 63.8, "R-CNN BB (12)": 62.4}

# Table 4: Fast R-CNN, R-CNN and SPPnet; VOC 2007
FAST, FAST_SVD, RCNN, SPPNET = "Fast R-CNN", "Fast R-CNN, SVD", "R-CNN", "SPPnet"
TABLE4_TRAIN_HOURS = {FAST: _by_net(1.2, 2.0, 9.5), RCNN: _by_net(22, 28, 84), SPPNET: {LARGE: 25.0}}
TABLE4_TRAIN_SPEEDUP = {FAST: _by_net(18.3, 14.0, 8.8), SPPNET: {LARGE: 3.4}}
TABLE4_TEST_SECONDS = {
    FAST: _by_net(0.10, 0.15, 0.32),
    FAST_SVD: _by_net(0.06, 0.08, 0.22),
    RCNN: _by_net(9.8, 12.1, 47.0),
    SPPNET: {LARGE: 2.3},
}
TABLE4_TEST_SPEEDUP = {FAST: _by_net(98, 80, 146), FAST_SVD: _by_net(169, 150, 213), SPPNET: {LARGE: 20.0}}
TABLE4_MAP = {
    FAST: _by_net(57.1, 59.2, 66.9),
    FAST_SVD: _by_net(56.5, 58.7, 66.6),
    RCNN: _by_net(58.5, 60.2, 66.0),
    SPPNET: {LARGE: 63.1},
}

# Table 5: layers that are fine-tuned (L); hours of training where the text tells them
TABLE5_MAP = {"fc6 and up": 61.4, "conv3_1 and up": 66.9, "conv2_1 and up": 67.2}
TABLE5_TRAIN_HOURS = {"conv3_1 and up": 9.5, "conv2_1 and up": 12.5}
TABLE5_TEST_SECONDS = {"fc6 and up": 0.32, "conv3_1 and up": 0.32, "conv2_1 and up": 0.32}
TABLE5_OTHERS = {"SPPnet, fc6 and up": 63.1}

# Table 6: multi-task training
CLS_ONLY, NO_TEST_REG, STAGE_WISE, MULTI_TASK = (
    "classification only",
    "multi-task, no test-time regression",
    "stage-wise",
    "multi-task",
)
TABLE6_MAP = {
    CLS_ONLY: _by_net(52.2, 54.7, 62.6),
    NO_TEST_REG: _by_net(53.3, 55.5, 63.4),
    STAGE_WISE: _by_net(54.6, 56.6, 64.0),
    MULTI_TASK: _by_net(57.1, 59.2, 66.9),
}

# Table 7: scales of the image pyramid; L at five scales did not fit into the GPU's memory
ONE_SCALE, FIVE_SCALES = "1 scale", "5 scales"
TABLE7_MAP: dict[str, ByNet] = {ONE_SCALE: _by_net(57.1, 59.2, 66.9), FIVE_SCALES: {SMALL: 58.4, MEDIUM: 60.7}}
TABLE7_SECONDS: dict[str, ByNet] = {ONE_SCALE: _by_net(0.10, 0.15, 0.32), FIVE_SCALES: {SMALL: 0.39, MEDIUM: 0.64}}
TABLE7_SPPNET_ZF = {ONE_SCALE: (58.0, 0.14), FIVE_SCALES: (59.2, 0.38)}  # mAP, seconds an image

# Table 8: SVMs against the softmax
RCNN_SVM, FAST_SVM, FAST_SOFTMAX = "R-CNN, SVM", "Fast R-CNN, SVM", "Fast R-CNN, softmax"
TABLE8_MAP = {
    RCNN_SVM: _by_net(58.5, 60.2, 66.0),
    FAST_SVM: _by_net(56.3, 58.7, 66.8),
    FAST_SOFTMAX: _by_net(57.1, 59.2, 66.9),
}

# Figure 2: forward time of VGG16 by layer, (percent, milliseconds)
BEFORE, AFTER = "before SVD", "after SVD"
ROI_POOLING = "RoI pooling"
FIG2 = {
    BEFORE: {"conv": (46.3, 146), "fc6": (38.7, 122), "fc7": (6.2, 20), ROI_POOLING: (5.4, 17), "other": (3.5, 11)},
    AFTER: {"conv": (67.8, 143), "fc6": (17.5, 37), "fc7": (1.7, 4), ROI_POOLING: (7.9, 17), "other": (5.1, 11)},
}
FIG2_MAP = {BEFORE: 66.9, AFTER: 66.6}
FIG2_TOTAL_MS = {BEFORE: 320, AFTER: 223}

# Figure 3: mAP with other proposals (M), where the text tells it
FIG3_MAP = {
    "selective search + dense": 53.0,  # 2,000 and 45,000 boxes
    "nearest dense": 57.7,
    "dense": 52.9,  # 45,000
    "dense, SVM": 49.3,
}
