"""The randomised copies of a model, and a run's methods on them: each copy is made and captured once."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn

from clarp.evaluation.attribution import Attributor
from clarp.evaluation.metrics import ParameterRandomisation


@dataclass(eq=False)
class Randomised:
    """Copies of one model.

    Attributes:
        model: is not changed.
    """

    model: nn.Module
    _copies: dict[ParameterRandomisation, list[nn.Module]] = field(default_factory=dict, init=False)
    _methods: dict[tuple[str, int], Attributor] = field(default_factory=dict, init=False)

    def truth(
        self, metric: ParameterRandomisation, method: Attributor, ids: Sequence[str]
    ) -> Mapping[str, Callable[[nn.Module, Tensor, Tensor | None], Tensor] | list[nn.Module]]:
        """What the metric needs to know of a method: how it explains a copy, and the copies."""
        if metric not in self._copies:
            self._copies[metric] = list(metric.randomised(self.model))

        def attribute(model: nn.Module, images: Tensor, targets: Tensor | None) -> Tensor:
            assert targets is not None
            key = (method.name, id(model))
            if key not in self._methods:
                self._methods[key] = method.on(model)
            return self._methods[key](images, targets, ids)

        return {"attribute": attribute, "copies": self._copies[metric]}
