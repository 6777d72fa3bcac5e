"""Captured graphs on disk: their keys, their file format, their folder."""

from clarp.cache.folder import GraphCache, default_folder

__all__ = ["GraphCache", "default_folder"]
