"""Libraries that only some rooms need: found when first used, and if absent one clear sentence."""

from importlib import import_module
from typing import Any


def optional(module: str, purpose: str) -> Any:
    """Import ``module`` of the ``eval`` extra.

    Args:
        module: dotted name, for example ``"pycocotools.mask"``.
        purpose: what it is needed for, the beginning of the message.

    Raises:
        ImportError: it is not installed; the message says how to install it.

    >>> optional("no_such_library", "Counting angels")
    Traceback (most recent call last):
    ...
    ImportError: Counting angels needs no_such_library, which is not installed: pip install 'clarp[eval]'
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.partition(".")[0]:
            raise
        library = module.partition(".")[0]
        message = f"{purpose} needs {library}, which is not installed: pip install 'clarp[eval]'"
        raise ImportError(message) from error
