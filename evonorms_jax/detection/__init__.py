"""Mask R-CNN: object detection and instance segmentation with any normalization-activation layer."""
