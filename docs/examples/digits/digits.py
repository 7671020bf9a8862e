"""Handwritten digits that arrive in three batches: a small classifier that rewarm keeps fresh.

`make` is the factory that rewarm.yaml names; it is all that rewarm needs. Run as a program this file makes the data
and measures a model:

    python digits.py data
    python digits.py accuracy var/models/digits/v3
"""

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_model
from torch import Tensor, nn

from stages.training.task import Record, Task

HERE = Path(__file__).parent
DOMAINS = {"low": (0, 1, 2, 3), "middle": (4, 5, 6), "high": (7, 8, 9)}
"""Each arrival brings digits that no earlier one had: without replay the earlier ones would be forgotten."""

Inputs = tuple[Tensor, Tensor]


class Classifier(nn.Module):
    """Two layers with dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(64, 96)
        self.dropout = nn.Dropout(0.1)
        self.output = nn.Linear(96, 10)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the digits' logits: (rows, 64) → (rows, 10)."""
        hidden: Tensor = self.dropout(F.relu(self.hidden(pixels)))
        logits: Tensor = self.output(hidden)
        return logits


def collate(records: Sequence[Record]) -> Inputs:
    """Return pixels between 0 and 1, (records, 64), and the digits that they show, (records,)."""
    pixels = torch.tensor([record["pixels"] for record in records], dtype=torch.float32) / 16
    return pixels, torch.tensor([record["digit"] for record in records])


def losses(model: nn.Module, inputs: Inputs) -> Tensor:
    """Return each record's cross entropy in nats."""
    pixels, digits = inputs
    return F.cross_entropy(model(pixels), digits, reduction="none")


def make() -> Task[Inputs]:
    """Return the task: a new classifier, and how it learns."""
    return Task(model=Classifier(), collate=collate, losses=losses)


def write_data(folder: Path, images: Iterable[Sequence[float]], labels: Iterable[float]) -> None:
    """Write the arrivals into `folder`/inbox, and one in five of each domain's digits into `folder`/test."""
    shown = list(zip(images, labels, strict=True))
    for domain, digits in DOMAINS.items():
        records = [
            json.dumps({"pixels": [int(pixel) for pixel in image], "digit": int(label)})
            for image, label in shown
            if label in digits
        ]
        for name, part in (("test", records[::5]), ("inbox", [r for at, r in enumerate(records) if at % 5])):
            path = folder / name / f"{domain}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(f"{record}\n" for record in part))


def measure(model: Path, folder: Path) -> dict[str, float]:
    """Return a published model's share of right answers on each domain's test digits."""
    classifier = Classifier()
    load_model(classifier, model / "model.safetensors")
    classifier.eval()
    found = {}
    for domain in DOMAINS:
        lines = (folder / "test" / f"{domain}.jsonl").read_text().splitlines()
        pixels, digits = collate([json.loads(line) for line in lines])
        with torch.inference_mode():
            right = classifier(pixels).argmax(dim=1) == digits
        found[domain] = right.double().mean().item()
    return found


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["data"]:
            from sklearn.datasets import load_digits

            write_data(HERE, *load_digits(return_X_y=True))
        case ["accuracy", model]:
            for domain, share in measure(Path(model), HERE).items():
                sys.stdout.write(f"{domain:8} {share:6.1%}\n")
        case _:
            sys.exit(f"usage: {sys.argv[0]} data | accuracy MODEL")
