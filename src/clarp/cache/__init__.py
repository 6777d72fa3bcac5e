"""Captured graphs on disk: what they depend on, how they are written, and where they lie."""

from clarp.cache.folder import GraphCache, default_folder

__all__ = ["GraphCache", "default_folder"]
