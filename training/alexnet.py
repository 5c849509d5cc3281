"""The network of Krizhevsky, Sutskever and Hinton (2012): two columns that talk at conv3, fc6, fc7 and fc8 only.

Here both columns live on one device as grouped convolutions: group 0 is the first GPU, group 1 the second. Weight names and
shapes are those of the whole layer, so a file of weights does not depend on where the columns run.

Legend: B batch, C maps or channels, H height, W width, N examples, D feature width.
"""

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional as F

from training.lrn import local_response_norm

CONV_BIASES = (0.0, 1.0, 0.0, 1.0, 1.0)
COLUMNS = 2


class AlexNetConfig(BaseModel):
    """The shape of a network; saved beside its weights. The defaults are the paper's (section 3.5)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    profile: str = Field("paper", pattern="^paper$", description="which description of the network this follows")
    classes: int = Field(1000, ge=1, description="width of fc8")
    maps: tuple[int, int, int, int, int] = Field((48, 128, 192, 192, 128), description="kernels of conv1..5, one column")
    hidden: int = Field(2048, ge=1, description="units of fc6 and of fc7, one column")
    input_size: int = Field(224, ge=67, description="height and width of the crop, pixels")
    pixel_scale: float = Field(1.0, gt=0, description="what pixels less the mean are multiplied by before conv1; 1 in the paper")
    dropout: float = Field(0.5, ge=0, lt=1, description="share of fc6 and fc7 units dropped in training")
    lrn_size: int = Field(5, ge=1, description="maps in a normalisation window")
    lrn_k: float = 2.0
    lrn_alpha: float = Field(1e-4, description="not divided by lrn_size")
    lrn_beta: float = 0.75

    @property
    def fc7_width(self) -> int:
        """Components of an FC7 feature: both columns, 4096 in the paper."""
        return COLUMNS * self.hidden

    def pooled_size(self) -> int:
        """Height and width of the last feature maps, pixels: 6 for a 224 crop."""
        size = 1 + -(-(self.input_size - 11) // 4)
        for _ in range(3):
            size = (size - 3) // 2 + 1
        return size


class AlexNet(nn.Module):
    """AlexNet with two columns (paper, figure 2). 60,965,224 parameters with 1000 classes."""

    def __init__(self, config: AlexNetConfig) -> None:
        super().__init__()
        self.config = config
        c1, c2, c3, c4, c5 = (COLUMNS * maps for maps in config.maps)
        self.conv1 = nn.Conv2d(3, c1, 11, stride=4)
        self.conv2 = nn.Conv2d(c1, c2, 5, padding=2, groups=COLUMNS)
        self.conv3 = nn.Conv2d(c2, c3, 3, padding=1)
        self.conv4 = nn.Conv2d(c3, c4, 3, padding=1, groups=COLUMNS)
        self.conv5 = nn.Conv2d(c4, c5, 3, padding=1, groups=COLUMNS)
        self.fc6 = nn.Linear(c5 * config.pooled_size() ** 2, config.fc7_width)
        self.fc7 = nn.Linear(config.fc7_width, config.fc7_width)
        self.fc8 = nn.Linear(config.fc7_width, config.classes)

    def features(self, x_BCHW: Tensor) -> Tensor:
        """FC7 after ReLU, column 0 then column 1: float (B, 4096) from mean-subtracted RGB pixels (B, 3, 224, 224)."""
        dropout = self.config.dropout
        h = F.dropout(F.relu(self.fc6(self._pool5(x_BCHW).flatten(1))), dropout, self.training)
        return F.dropout(F.relu(self.fc7(h)), dropout, self.training)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Logits (B, classes) from mean-subtracted RGB pixels on the 0..255 scale (B, 3, 224, 224)."""
        logits: Tensor = self.fc8(self.features(x_BCHW))
        return logits

    def _pool5(self, x_BCHW: Tensor) -> Tensor:
        # ceil, as in the 2012 code: 55 positions from 224 pixels, by zeros on the right and bottom only; PyTorch floors
        short = -(x_BCHW.shape[-1] - 11) % 4
        x_BCHW = F.pad(x_BCHW * self.config.pixel_scale, (0, short, 0, short))
        h = F.relu(self.conv1(x_BCHW))
        h = F.relu(self.conv2(F.max_pool2d(self._lrn(h), 3, 2)))
        h = F.relu(self.conv3(F.max_pool2d(self._lrn(h), 3, 2)))
        h = F.relu(self.conv5(F.relu(self.conv4(h))))
        return F.max_pool2d(h, 3, 2)

    def _lrn(self, h_BCHW: Tensor) -> Tensor:
        c = self.config
        return local_response_norm(h_BCHW, size=c.lrn_size, k=c.lrn_k, alpha=c.lrn_alpha, beta=c.lrn_beta, columns=COLUMNS)

    def layers(self) -> list[nn.Conv2d | nn.Linear]:
        """The eight layers with weights, in order from the image to the logits."""
        return [self.conv1, self.conv2, self.conv3, self.conv4, self.conv5, self.fc6, self.fc7, self.fc8]
