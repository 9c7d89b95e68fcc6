"""A few steps of training, as the suite trains: AdamW, clipped gradients."""

import torch


def rate(technique: str) -> float:
    """A learning rate that a tiny model with random weights does not diverge at."""
    return 3e-3 if technique.partition(",")[0] in ("standard", "lora") else 1e-2


def train(model, loss, steps: int, learning_rate: float) -> list[float]:
    """The loss at each step. loss: a function without arguments."""
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=learning_rate)
    model.train()
    losses = []
    for _ in range(steps):
        value = loss()
        value.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(value.item())
    model.eval()
    return losses
