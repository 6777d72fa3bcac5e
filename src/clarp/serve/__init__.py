"""The web page and its API: a photo goes in, predictions, heatmaps and the effect of masking come out."""

from clarp.optional import optional

for _library in ("fastapi", "uvicorn"):
    optional(_library, "clarp serve", "serve")
del _library
