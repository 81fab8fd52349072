"""Holds weights near where they began."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class Anchor:
    """The penalty α/2·Σ_i f_i (w_i - w⁰_i)² as its gradient α·f_i (w_i - w⁰_i).

    With every importance f = 1 this is L2-SP (Li et al. 2018), with the Fisher information's diagonal elastic weight
    consolidation (Kirkpatrick et al. 2017).
    """

    def __init__(
        self, reference: Mapping[str, Tensor], *, strength: float, importance: Mapping[str, Tensor] | None = None
    ) -> None:
        """``reference``: the weights w⁰ by parameter name; parameters not in it are free."""
        self._reference = {name: tensor.detach().clone() for name, tensor in reference.items()}
        self._strength = strength
        self._importance = importance

    def pull(self, network: nn.Module) -> None:
        """Add the penalty's gradient to that of every anchored parameter that has one."""
        named = [
            (name, parameter)
            for name, parameter in network.named_parameters()
            if name in self._reference and parameter.grad is not None
        ]
        if not named:
            return
        with torch.no_grad():
            distances = torch._foreach_sub([p for _, p in named], [self._reference[name] for name, _ in named])
            if self._importance is not None:
                torch._foreach_mul_(distances, [self._importance[name] for name, _ in named])
            torch._foreach_add_([p.grad for _, p in named if p.grad is not None], distances, alpha=self._strength)
