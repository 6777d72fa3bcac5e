"""What the page is told of a run's findings: sentences, the units behind them by number, and all clusters."""

from typing import Any

import numpy as np

from clarp.evaluation.findings import Findings
from clarp.evaluation.findings.clusters import Cluster
from clarp.evaluation.findings.writing import sections
from clarp.text import printable


def findings_shown(findings: Findings) -> dict[str, Any]:
    """Sections of sentences, each with the number of its photos or None; those photos; and the clusters.

    A method is said by its place among all methods of the run.
    """
    column = dict(zip(findings.asked.methods, findings.asked.columns, strict=True))
    photos: list[dict[str, Any]] = []
    told: list[tuple[str, list[tuple[str, int | None]]]] = []
    for title, lines in sections(findings):
        numbered: list[tuple[str, int | None]] = []
        for line in lines:
            numbered.append((line.text, len(photos) if line.units else None))
            if line.units:
                method = column.get(line.method or "", next(iter(column.values()), 0))
                photos.append(
                    {"units": line.units, "method": method, "words": line.about, "place": line.place}
                )
        told.append((title, numbered))
    clusters = [
        {
            "name": printable(one.name),
            "method": column[one.method],
            "clustered": one.clustered,
            "clusters": [_cluster(cluster) for cluster in one.clusters],
            "outliers": one.outliers,
        }
        for one in findings.clusters
    ]
    return {"sections": told, "photos": photos, "clusters": clusters}


def _cluster(cluster: Cluster) -> dict[str, Any]:
    """Its units, and its mean map in 255 steps of its strongest field."""
    strength = np.rint(cluster.mean / cluster.mean.max() * 255).astype(int)
    return {"units": cluster.units.tolist(), "mean": strength.ravel().tolist(), "place": cluster.place}
