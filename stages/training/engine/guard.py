"""What never reaches the optimiser: a loss or gradient that is no number, and a step far out of the last ones' way."""

import torch
from torch import Tensor

WINDOW = 128
FEWEST = WINDOW // 2
"""Fewer values than this, the latest among them, say nothing."""


class Guard:
    """Judges every step on the device, so that nobody waits for it.

    A loss or gradient norm more than `sigma` standard deviations above the mean of the last 128 is a spike: that
    step is left out (OLMo 2, arXiv 2501.00656, section 3.2; the rule of OLMo-core's SkipStepOptimizer, of which
    the side below the mean is left away, for a fall is no harm). As there, spikes stay among the last 128.
    After one number that is not finite every step is withheld: the weights stay those before it until it is read.
    """

    def __init__(self, sigma: float | None, device: torch.device) -> None:
        self._sigma = sigma
        self._last = torch.zeros(2, WINDOW, device=device)
        self._halted = torch.zeros((), device=device)
        self._seen = 0
        self.skipped = 0

    def judge(self, loss: Tensor, norm: Tensor) -> Tensor:
        """Return [loss, norm, withheld, halted] on the device; the last two are 1 or 0. Both inputs are of one step."""
        pair = torch.stack((loss.detach().float(), norm.detach().float()))
        self._halted = torch.maximum(self._halted, 1 - torch.isfinite(pair).all().float())
        withheld = self._halted
        if self._sigma is not None:
            if self._seen + 1 >= FEWEST:
                deviation, mean = torch.std_mean(self._last[:, : min(self._seen, WINDOW)], dim=1)
                withheld = torch.maximum(withheld, (pair > mean + self._sigma * deviation).any().float())
            self._last[:, self._seen % WINDOW] = pair
            self._seen += 1
        return torch.cat((pair, withheld.view(1), self._halted.view(1)))

    def dump(self) -> dict[str, Tensor]:
        """Return what a checkpoint keeps: the last losses and norms, and how many steps were seen and left out."""
        if self._sigma is None:
            return {}
        return {"last": self._last, "counts": torch.tensor([self._seen, self.skipped])}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Put back what `dump` gave; raises KeyError when it is missing."""
        if self._sigma is not None:
            self._last.copy_(tensors["last"])
            self._seen, self.skipped = (int(count) for count in tensors["counts"].tolist())
