"""Classifiers by name, with their labels and preprocessing: ``clarp.models.load("resnet50")``."""

from clarp.models.classifier import Classifier, PixelScale
from clarp.models.registry import load, names

__all__ = ["Classifier", "PixelScale", "load", "names"]
