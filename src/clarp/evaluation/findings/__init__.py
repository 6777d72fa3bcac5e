"""What a run's maps say together: marks at fixed places, the background, confusions, clusters."""

from clarp.evaluation.findings.findings import Findings

__all__ = ["Findings"]
