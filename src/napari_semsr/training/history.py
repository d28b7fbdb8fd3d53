"""A history of generated images, from which a discriminator is shown some.

Old mistakes are not forgotten, and training swings less (Shrivastava et al. 2017,
arXiv:1612.07828; 50 images in Zhu et al. 2017, arXiv:1703.10593).
"""

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["History"]


class History(nn.Module):
    """Remembers images; its state is part of a checkpoint.

    Parameters
    ----------
    size : int
        Images that are remembered; 0 for none.
    shape : tuple of int
        Channels, rows and columns of an image.
    seed : int
        Makes the draws repeatable.
    """

    images: Tensor
    count: Tensor

    def __init__(self, size: int, shape: tuple[int, int, int], seed: int) -> None:
        super().__init__()
        self.seed = seed
        self.register_buffer("images", torch.zeros(size, *shape))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def exchange(self, fresh: Tensor, step: int) -> Tensor:
        """Show new images, or old ones in whose places the new ones are kept.

        Until the history is full, all are kept and shown; then each is, by chance of a
        half, exchanged for an old one.

        Parameters
        ----------
        fresh : (B, C, H, W) torch.Tensor
            What was generated now.
        step : int
            Number of the training step, on which the draw depends.

        Returns
        -------
        (B, C, H, W) torch.Tensor
            What the discriminator is to see, without gradients.
        """
        fresh = fresh.detach()
        size = len(self.images)
        if not size:
            return fresh
        rng = np.random.default_rng([self.seed, step])
        shown = []
        for image in fresh:
            if int(self.count) < size:
                self.images[int(self.count)] = image
                self.count += 1
                shown.append(image)
                continue
            place = int(rng.integers(size))
            if rng.random() < 0.5:
                shown.append(self.images[place].to(image.dtype).clone())
                self.images[place] = image
            else:
                shown.append(image)
        return torch.stack(shown)
