"""The CNN: four convolution stages, three down-samplings, batch normalisation on every layer (section 3.4)."""

from __future__ import annotations

from torch import Tensor, nn

from fer_edge.model.config import ModelConfig

__all__ = ["FrameCNN", "ResidualBlock"]


def _convolution(inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut (He et al. 2016, arXiv 1512.03385)."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.expand = _convolution(channels, width)
        self.reduce = _convolution(width, channels)
        self.relu = nn.ReLU(inplace=True)
        nn.init.zeros_(self.reduce.get_parameter("1.weight"))  # the block starts as the identity (arXiv 1706.02677)

    @property
    def width(self) -> int:
        """Channels between the two convolutions."""
        return int(self.expand.get_parameter("0.weight").shape[0])

    def branch(self, x: Tensor) -> Tensor:
        """Compute the residual: (N, C, H, W) -> (N, C, H, W)."""
        refined: Tensor = self.reduce(self.relu(self.expand(x)))
        return refined

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        output: Tensor = self.relu(x + self.branch(x))
        return output


class FrameCNN(nn.Sequential):
    """float (N, 1, S, S) -> feature map (N, C, S/8, S/8)."""

    def __init__(self, config: ModelConfig) -> None:
        stages: list[nn.Module] = []
        inputs = 1
        for index, (channels, widths) in enumerate(zip(config.channels, config.blocks, strict=True)):
            strided = index == 0 and config.stem == "strided"
            kernel = config.stem_kernel if index == 0 else 3
            layers: list[nn.Module] = [*_convolution(inputs, channels, kernel=kernel, stride=2 if strided else 1)]
            layers.append(nn.ReLU(inplace=True))
            layers += (ResidualBlock(channels, width) for width in widths)
            if index < 3 and not strided:
                layers.append(nn.MaxPool2d(2))
            stages.append(nn.Sequential(*layers))
            inputs = channels
        super().__init__(*stages)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
