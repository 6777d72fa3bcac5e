"""The web page and its API: a photo goes in, predictions, heatmaps and the effect of masking come out."""
