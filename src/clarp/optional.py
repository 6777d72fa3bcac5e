"""Libraries of clarp's extras, imported when first used."""

from importlib import import_module
from typing import Any


def optional(module: str, purpose: str, extra: str | None = "eval") -> Any:
    """Import ``module`` of one of clarp's extras.

    Args:
        module: dotted name, for example ``"pycocotools.mask"``.
        purpose: what it is needed for, the beginning of the message.
        extra: the extra that installs it; None: none does.

    Raises:
        ModuleNotFoundError: it is not installed; the message says how to install it.

    >>> optional("no_such_library", "Counting")
    Traceback (most recent call last):
    ...
    ModuleNotFoundError: Counting needs no_such_library, which is not installed: pip install "clarp[eval]".
    """
    library = module.partition(".")[0]
    try:
        try:
            return import_module(module)
        except RuntimeError as error:
            if "torchvision::nms" not in str(error):
                raise
            import_module("clarp.models._torchvision")  # makes the import of torchvision work everywhere
            return import_module(module)
    except ModuleNotFoundError as error:
        if error.name != library:
            raise
        wanted = library if extra is None else f'"clarp[{extra}]"'
        message = f"{purpose} needs {library}, which is not installed: pip install {wanted}."
        raise ModuleNotFoundError(message, name=library) from error
