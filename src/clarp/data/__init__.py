"""Data sets for the evaluation: photos, what is in them, and where; and the geometry between photo and model.

Every reader returns a :class:`Dataset` of :class:`Sample` in a fixed order with ids that are the same
everywhere. Files that are missing or damaged become problems with names; annotations that contradict their
pictures are refused with file and line.
"""

from clarp.data.coco import coco
from clarp.data.composites import IMAGENET_GREY, composites
from clarp.data.dataset import Dataset
from clarp.data.folder import image_folder, image_table
from clarp.data.imagenet import imagenet
from clarp.data.mosaics import mosaics
from clarp.data.packing import PackOutcome, pack
from clarp.data.pairs import boxed_photos
from clarp.data.photo import Photo, Picture
from clarp.data.problems import AnnotationError, Contradiction, Problem, StoreError, UnreadableImageError
from clarp.data.rendered import Scene, Scenes, rendered
from clarp.data.sample import Label, Object, Region, Sample, Truth
from clarp.data.voc import VOC_CLASSES, voc
from clarp.geometry import Box, Geometry, Size

__all__ = [
    "IMAGENET_GREY",
    "VOC_CLASSES",
    "AnnotationError",
    "Box",
    "Contradiction",
    "Dataset",
    "Geometry",
    "Label",
    "Object",
    "PackOutcome",
    "Photo",
    "Picture",
    "Problem",
    "Region",
    "Sample",
    "Scene",
    "Scenes",
    "Size",
    "StoreError",
    "Truth",
    "UnreadableImageError",
    "boxed_photos",
    "coco",
    "composites",
    "image_folder",
    "image_table",
    "imagenet",
    "mosaics",
    "pack",
    "rendered",
    "voc",
]
