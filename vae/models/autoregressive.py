"""A decoder that sees the pixels before the one it predicts: p(x|z) = prod_i p(x_i | x_1 ... x_{i-1}, z), pixels in
reading order (van den Oord et al. 2016, arXiv 1601.06759, the PixelCNN; with a code: Gulrajani et al. 2017, arXiv
1611.05013, and Chen et al. 2017, arXiv 1611.02731). The channels of one pixel are independent given what is before it.

Such a decoder can model the images without z. Where it does, a code is worth nothing to the ELBO: what it saves in
log p(x|z) it costs in KL (Chen et al. 2017, section 2.2, by bits-back coding)."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Quantile = Callable[[Tensor, Tensor], Tensor]  # raw outputs and uniform noise of a pixel to its values
Row = list[Tensor]


class MaskedConv(nn.Conv2d):
    """A convolution of size `kernel` (odd) that sees the rows above, in its own row what is left of its place, and its
    place itself where `sees_itself`. The weights of the rows below are not there at all."""

    mask: Tensor

    def __init__(self, inputs: int, outputs: int, kernel: int, sees_itself: bool) -> None:
        self.reach = kernel // 2  # rows above, and columns on either side
        self.left = self.reach + sees_itself  # columns of its own row that it sees
        super().__init__(inputs, outputs, (self.reach + 1, kernel))
        mask = torch.ones(self.reach + 1, kernel)
        mask[-1, self.left :] = 0
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, features: Tensor, rectified: bool = False) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H, W). `rectified`: of the ReLU of the features, in the copy that has the
        border."""
        reach = self.reach
        bordered = F.pad(features, (reach, reach, reach, 0))
        if rectified:
            bordered = bordered.relu_()
        return F.conv2d(bordered, self.weight * self.mask, self.bias)

    def from_above(self, features: Tensor, row: int) -> Tensor:
        """What the rows above `row` of features (B, inputs, H, W) give, with the bias: (B, outputs, W)."""
        bias = self.bias
        assert bias is not None
        above = features[:, :, max(0, row - self.reach) : row]
        if not above.shape[2]:
            return bias[:, None].expand(len(features), -1, features.shape[3])
        weight = self.weight[:, :, self.reach - above.shape[2] : self.reach]
        return F.conv2d(F.pad(above, (self.reach, self.reach)), weight, bias).squeeze(2)

    def from_left(self) -> Tensor:
        """The weights of its own row, (left * inputs, outputs), for values (B, left, inputs) one after another."""
        return self.weight[:, :, self.reach, : self.left].permute(2, 1, 0).flatten(0, 1)


class Map(nn.Module):
    """Codes (B, d) to feature maps (B, channels, H, W): by a dense layer, which treats each place by itself, or by two
    transposed convolutions."""

    def __init__(self, latent_dim: int, hidden: int, channels: int, sides: tuple[int, int], convolves: bool) -> None:
        super().__init__()
        height, width = sides
        if convolves:
            quarter = (hidden, -(-height // 4), -(-width // 4))
            layers: list[nn.Module] = [
                nn.Linear(latent_dim, quarter[0] * quarter[1] * quarter[2]),
                nn.ReLU(inplace=True),
                nn.Unflatten(1, quarter),
                nn.ConvTranspose2d(hidden, hidden, kernel_size=4, stride=2, padding=1),
                nn.ReLU(inplace=True),
                nn.ConvTranspose2d(hidden, channels, kernel_size=4, stride=2, padding=1),
            ]
        else:
            layers = [
                nn.Linear(latent_dim, hidden),
                nn.ReLU(inplace=True),
                nn.Linear(hidden, channels * height * width),
                nn.Unflatten(1, (channels, height, width)),
            ]
        self.layers, self.sides = nn.Sequential(*layers), sides

    def forward(self, z: Tensor) -> Tensor:
        features: Tensor = self.layers(z)
        return features[:, :, : self.sides[0], : self.sides[1]]


class Bias(nn.Module):
    """Codes (B, d) to one number for each channel (B, channels, 1, 1): the same everywhere, so it cannot say where."""

    def __init__(self, latent_dim: int, channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(latent_dim, channels)

    def forward(self, z: Tensor) -> Tensor:
        return self.linear(z)[:, :, None, None]


class PixelCNN(nn.Module):
    """Masked convolutions, the first without its own place, each followed by ReLU; from the second on what comes in is
    added to what goes out where `residual`. The code enters at the first, with `skip` at each (Dieng et al. 2019, arXiv
    1807.04863). A channel of ones beside the image tells what lies beyond its border from black pixels. Without
    `kernels` it sees no pixels: a decoder like any other.

    `entry` makes of codes what all entries share (nothing for a bias, maps otherwise), `entries` what each adds."""

    def __init__(
        self,
        shape: tuple[int, int, int],
        outputs: int,
        kernels: Sequence[int],
        channels: int,
        residual: bool,
        entry: nn.Module,
        entries: Sequence[nn.Module],
    ) -> None:
        super().__init__()
        self.shape = shape
        inputs = [shape[0] + 1, *[channels] * len(kernels)]
        self.convolutions = nn.ModuleList(
            MaskedConv(inputs[i], channels, kernel, sees_itself=i > 0) for i, kernel in enumerate(kernels)
        )
        self.residual, self.entry, self.entries = residual, entry, nn.ModuleList(entries)
        self.out = nn.Conv2d(channels, outputs, kernel_size=1)

    @property
    def is_autoregressive(self) -> bool:
        return len(self.convolutions) > 0

    def _conditions(self, z: Tensor) -> list[Tensor]:
        """What the code adds at each place that it enters, (B, channels, H, W) or (B, channels, 1, 1)."""
        shared = self.entry(z)
        return [enter(shared) for enter in self.entries]

    def forward(self, z: Tensor, images: Tensor | None = None) -> Tensor:
        """Codes (B, d), and the images (B, C, H, W) whose pixels are predicted, each from those before it, to raw
        outputs (B, outputs, H, W)."""
        conditions = self._conditions(z)
        features = conditions[0]
        for i, convolution in enumerate(self.convolutions):
            if i == 0:
                assert images is not None
                features = convolution(torch.cat([images, torch.ones_like(images[:, :1])], 1)).add_(features)
                continue
            more = convolution(features, rectified=True)
            if i < len(conditions):
                more += conditions[i]
            features = more.add_(features) if self.residual else more
        raw: Tensor = self.out(torch.relu(features))
        return raw

    @torch.no_grad()
    def sample(self, z: Tensor, quantile: Quantile, noise: Tensor) -> Tensor:
        """Images (B, C, H, W) drawn pixel by pixel for codes (B, d). `noise` (B or 1, C, H, W), uniform on (0, 1), is
        all the chance in it: `quantile` makes pixel values of raw outputs and noise.

        What the rows above contribute is computed once a row, and what a pixel's own row does as it grows: a pixel
        takes one small product a layer instead of the whole network on the whole image."""
        (channels, height, width), count = self.shape, len(z)
        noise = noise.expand(count, -1, -1, -1)
        convolutions = [layer for layer in self.convolutions if isinstance(layer, MaskedConv)]
        conditions = [c.expand(-1, -1, height, width) for c in self._conditions(z)]
        # What each layer sees: of the first the image, of the others rectified features.
        seen = [torch.zeros(count, layer.in_channels, height, width, device=z.device) for layer in convolutions]
        weights = [layer.from_left() for layer in convolutions]
        out_weight, out_bias = self.out.weight.flatten(1).t(), self.out.bias
        assert out_bias is not None
        for row in range(height):
            above = []
            for i, layer in enumerate(convolutions):
                given = layer.from_above(seen[i], row)
                given = given + conditions[i][:, :, row] if i < len(conditions) else given
                above.append(given.permute(2, 0, 1).contiguous())  # (W, B, channels)
            own = [
                torch.zeros(count, width + layer.reach, layer.in_channels, device=z.device) for layer in convolutions
            ]
            own[0][:, convolutions[0].reach :, channels] = 1
            for column in range(width):
                features = above[0][column]
                for i, layer in enumerate(convolutions):
                    if i > 0:
                        own[i][:, column + layer.reach] = torch.relu(features)
                    left = own[i][:, column : column + layer.left].flatten(1)
                    more = torch.addmm(above[i][column], left, weights[i])
                    features = features + more if self.residual and i > 0 else more
                raw = torch.addmm(out_bias, torch.relu(features), out_weight)
                values = quantile(raw[:, :, None, None].float(), noise[:, :, row : row + 1, column : column + 1])
                own[0][:, column + convolutions[0].reach, :channels] = values[:, :, 0, 0]
            for i, layer in enumerate(convolutions):
                seen[i][:, :, row] = own[i][:, layer.reach :].transpose(1, 2)
        return seen[0][:, :channels]
