"""The web page and its API: a photo goes in, predictions, heatmaps and the effect of masking come out."""

try:
    import fastapi as _fastapi
    import uvicorn as _uvicorn
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f'clarp serve needs {error.name}, which is not installed: pip install "clarp[serve]".',
        name=error.name,
    ) from error
del _fastapi, _uvicorn
