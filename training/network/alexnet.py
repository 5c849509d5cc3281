"""The network of Krizhevsky, Sutskever and Hinton (2012): two columns that talk at conv3, fc6, fc7 and fc8 only.

`AlexNet(config)` holds both columns as grouped convolutions: group 0 is the first GPU, group 1 the second.
`AlexNet(config, column)` is one column by itself, for a device of its own. Both run the same stages. Weight names and shapes are
those of whole layers, so a file of weights does not depend on where the columns run.

Legend: B batch, C maps or channels, H height, W width, N examples, D feature width.
"""

from typing import Annotated, Any, Final, Literal, get_args

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from training.network.lrn import local_response_norm, map_norm, norm_pool

Layer = Literal["conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8"]
Profile = Literal["paper", "source", "caffe", "owt"]
Nonlinearity = Literal["relu", "tanh", "abs-tanh", "sigmoid"]
Maps = Annotated[int, Field(ge=1, le=1024)]
Scale = Annotated[float, Field(ge=1e-6, le=1e6)]
Masks = tuple[Tensor, Tensor]  # kept units of fc6 and of fc7, bool (B, units)
LAYERS: Final[tuple[Layer, ...]] = get_args(Layer)  # those with weights, from the image to the logits
KERNELS: Final = (11, 5, 3, 3, 3)  # of conv1..conv5, pixels


class AlexNetConfig(BaseModel):
    """The shape of a network; saved beside its weights. The defaults are the paper's (section 3.5).

    It may come from a stranger's file, so every field has bounds, a few times what any known network of this kind has.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    profile: Profile = Field("paper", description="which description of the network this follows")
    classes: int = Field(1000, ge=1, le=100_000, description="width of fc8")
    columns: Literal[1, 2] = Field(2, description="columns, one a GPU in 2012")
    exchange: bool = Field(True, description="whether the columns hear each other at conv3, fc6 and fc7; fc8 always hears both")
    maps: tuple[Maps, Maps, Maps, Maps, Maps] = Field((48, 128, 192, 192, 128), description="kernels of conv1..5, one column")
    hidden: int = Field(2048, ge=1, le=16_384, description="units of fc6 and of fc7, one column")
    input_size: int = Field(224, ge=67, le=256, description="height and width of the crop, pixels")
    square_size: int = Field(
        256,
        ge=128,
        le=256,
        multiple_of=128,
        description="height and width of the square that crops are cut from, pixels; 128 for 256 x 256 pixels averaged 2 x 2",
    )
    pixel_scale: tuple[Scale, Scale, Scale] = Field(
        (1.0, 1.0, 1.0), description="what red, green and blue less the mean are multiplied by before conv1"
    )
    conv1_pad: int = Field(0, ge=0, lt=KERNELS[0], description="zeros around the image before conv1")
    conv1_ceil: bool = Field(
        True, description="whether conv1 counts positions by rounding up, with zeros on the right and bottom"
    )
    nonlinearity: Nonlinearity = Field("relu", description="after every layer but fc8")
    conv1_nonlinearity_last: bool = Field(False, description="whether conv1's nonlinearity comes after LRN and pooling")
    pool_size: int = Field(3, ge=1, le=16, description="height and width of a max-pooling window")
    pool_stride: int = Field(2, ge=1, le=16, description="distance between max-pooling windows")
    pool_floor: tuple[int, ...] = Field(
        (),
        max_length=3,
        description="the layers of 1, 2 and 5 whose pooling leaves out a last window that is cut; none in 2012",
    )
    lrn_after: tuple[int, ...] = Field((1, 2), max_length=5, description="the convolutional layers that LRN follows, 1 to 5")
    lrn_across: bool = Field(False, description="whether LRN's window crosses from one column into the other")
    lrn_size: int = Field(5, ge=1, le=255, description="maps in a normalisation window")
    lrn_k: float = Field(2.0, gt=0, le=1e6)
    lrn_alpha: float = Field(1e-4, ge=0, le=1e6, description="not divided by lrn_size")
    lrn_beta: float = Field(0.75, gt=0, le=16)
    map_norm_alpha: float = Field(
        0.0, ge=0, le=1e6, description="weight of the 5 x 5 normalisation within each map after conv2's LRN; 0 for none"
    )
    dropout: float = Field(0.5, ge=0, lt=1, description="share of fc6 and fc7 units dropped in training")

    @model_validator(mode="after")
    def _consistent(self) -> "AlexNetConfig":
        if self.input_size > self.square_size:
            raise ValueError(f"input_size must be at most square_size={self.square_size}, got {self.input_size}")
        if self.lrn_size % 2 == 0:
            raise ValueError(f"lrn_size must be odd, got {self.lrn_size}")
        if not set(self.lrn_after) <= {1, 2, 3, 4, 5}:
            raise ValueError(f"lrn_after must name layers from 1 to 5, got {self.lrn_after}")
        if not set(self.pool_floor) <= {1, 2, 5}:
            raise ValueError(f"pool_floor must name layers of 1, 2 and 5, got {self.pool_floor}")
        if self.pool_size < self.pool_stride:
            raise ValueError(f"pool_size must be at least pool_stride={self.pool_stride}, got {self.pool_size}")
        if self.sizes()[-1] < 1:
            raise ValueError(f"input_size must leave a pixel after pooling, got {self.input_size}")
        return self

    @property
    def fc7_width(self) -> int:
        """Components of an FC7 feature: both columns, 4096 in the paper."""
        return self.columns * self.hidden

    def with_fields(self, **changes: Any) -> "AlexNetConfig":
        """This with some fields changed, and checked. Raises pydantic's ValidationError."""
        return AlexNetConfig.model_validate(self.model_dump() | changes)

    def in_one_column(self) -> "AlexNetConfig":
        """This network with one column of as many units as the paper's two: run 145-half of 2012 (layers-145-half.cfg)."""
        return self.with_fields(columns=1, maps=(48, 128, 192, 192, 256), hidden=4096)

    def conv1_short(self) -> int:
        """Zeros added on the right and bottom only, so that conv1's last position is complete: 3 for a 224 crop."""
        # ceil, as in the 2012 code; PyTorch floors
        return -(self.input_size + 2 * self.conv1_pad - KERNELS[0]) % 4 if self.conv1_ceil else 0

    def sizes(self) -> list[int]:
        """Height and width of conv1's maps, and after each of the three poolings, pixels: 55, 27, 13, 6 for a 224 crop."""
        sizes = [1 + (self.input_size + 2 * self.conv1_pad + self.conv1_short() - KERNELS[0]) // 4]
        for layer in (1, 2, 5):
            left = sizes[-1] - self.pool_size
            sizes.append(1 + (left // self.pool_stride if layer in self.pool_floor else -(-left // self.pool_stride)))
        return sizes


PROFILES: Final[dict[Profile, AlexNetConfig]] = {
    "paper": AlexNetConfig(),
    "source": AlexNetConfig(profile="source", conv1_nonlinearity_last=True, lrn_alpha=1e-4 / 5, map_norm_alpha=1e-3 / 25),
    "caffe": AlexNetConfig(profile="caffe", input_size=227, conv1_ceil=False, lrn_across=True, lrn_k=1.0, lrn_alpha=1e-4 / 5),
    "owt": AlexNetConfig(
        profile="owt",
        columns=1,
        maps=(64, 192, 384, 256, 256),
        hidden=4096,
        pixel_scale=(1 / (255 * 0.229), 1 / (255 * 0.224), 1 / (255 * 0.225)),
        conv1_pad=2,
        conv1_ceil=False,
        lrn_after=(),
    ),
}


def activated(h: Tensor, nonlinearity: Nonlinearity) -> Tensor:
    """What a layer's sums become, of the same shape."""
    match nonlinearity:
        case "relu":
            return F.relu(h)
        case "tanh":
            return torch.tanh(h)
        case "abs-tanh":
            return torch.tanh(h).abs()
        case "sigmoid":
            return torch.sigmoid(h)


class GroupedLinear(nn.Linear):
    """A fully connected layer whose units hear one group of inputs only: weight (out, in / groups)."""

    def __init__(self, inputs: int, outputs: int, groups: int) -> None:
        super().__init__(inputs // groups, outputs)
        self.groups = groups

    def forward(self, x_BD: Tensor) -> Tensor:
        """Float (B, in) -> (B, out)."""
        if self.groups == 1:
            return super().forward(x_BD)
        parts = zip(x_BD.chunk(self.groups, 1), self.weight.chunk(self.groups), self.bias.chunk(self.groups), strict=True)
        return torch.cat([F.linear(*part) for part in parts], 1)


class AlexNet(nn.Module):
    """AlexNet, whole (paper, figure 2; 60,965,224 parameters with 1000 classes), or one `column` of it by itself.

    A column alone gives its share of fc8's sums; column 0 carries fc8's biases.
    """

    scale_C: Tensor

    def __init__(self, config: AlexNetConfig, column: int | None = None) -> None:
        super().__init__()
        self.config = config
        self.column = column
        here = config.columns if column is None else 1
        heard, apart = (config.columns, 1) if config.exchange else (here, here)
        c1, c2, c3, c4, c5 = (here * maps for maps in config.maps)
        pixels = config.sizes()[-1] ** 2
        self.here = here
        self.conv1 = nn.Conv2d(3, c1, KERNELS[0], stride=4)
        self.conv2 = nn.Conv2d(c1, c2, KERNELS[1], padding=2, groups=here)
        self.conv3 = nn.Conv2d(heard * config.maps[1], c3, KERNELS[2], padding=1, groups=apart)
        self.conv4 = nn.Conv2d(c3, c4, KERNELS[3], padding=1, groups=here)
        self.conv5 = nn.Conv2d(c4, c5, KERNELS[4], padding=1, groups=here)
        self.fc6 = GroupedLinear(heard * config.maps[4] * pixels, here * config.hidden, apart)
        self.fc7 = GroupedLinear(heard * config.hidden, here * config.hidden, apart)
        self.fc8 = nn.Linear(here * config.hidden, config.classes, bias=column in (None, 0))
        self.register_buffer("scale_C", torch.tensor(config.pixel_scale), persistent=False)

    def features(self, x_BCHW: Tensor, masks: Masks | None = None) -> Tensor:
        """FC7 after its nonlinearity, column 0 then column 1: float (B, 4096) from mean-subtracted RGB pixels (B, 3, 224, 224).

        `masks` are the units kept by dropout; without them none is dropped.
        """
        mask6, mask7 = masks or (None, None)
        return self.seventh(self.sixth(self.upper(self.lower(x_BCHW)), mask6), mask7)

    def stages(self, x_BCHW: Tensor) -> dict[Layer, Tensor]:
        """What may be a feature of a photograph, each after its nonlinearity, column 0 first: float (B, D).

        Of conv5 it is the mean of each map after its pooling.
        """
        pooled_BD = self.upper(self.lower(x_BCHW))
        fc6_BD = self.sixth(pooled_BD, None)
        conv5_BD = pooled_BD.unflatten(1, (self.here * self.config.maps[4], -1)).mean(2)
        return {"conv5": conv5_BD, "fc6": fc6_BD, "fc7": self.seventh(fc6_BD, None)}

    def forward(self, x_BCHW: Tensor, masks: Masks | None = None) -> Tensor:
        """Logits (B, classes) from mean-subtracted RGB pixels on the 0..255 scale (B, 3, 224, 224)."""
        logits: Tensor = self.fc8(self.features(x_BCHW, masks))
        return logits

    def lower(self, x_BCHW: Tensor) -> Tensor:
        """Pixels -> conv2 after pooling: what conv3 hears of these columns."""
        c = self.config
        end = c.conv1_pad + c.conv1_short()
        x_BCHW = F.pad(x_BCHW * self.scale_C[:, None, None], (c.conv1_pad, end, c.conv1_pad, end))
        h = self._norm_pool(self.conv1(x_BCHW), 1, late=c.conv1_nonlinearity_last)
        return self._norm_pool(self.conv2(h), 2)

    def upper(self, h_BCHW: Tensor) -> Tensor:
        """conv2 of all columns heard -> conv5 after pooling, (B, C * H * W): what fc6 hears of these columns."""
        h = self._norm(self.conv3(h_BCHW), 3)
        h = self._norm(self.conv4(h), 4)
        return self._norm_pool(self.conv5(h), 5).flatten(1)

    def sixth(self, h_BD: Tensor, mask_BD: Tensor | None) -> Tensor:
        """conv5 of all columns heard -> fc6 of these columns."""
        return self._drop(self.activate(self.fc6(h_BD)), mask_BD)

    def seventh(self, h_BD: Tensor, mask_BD: Tensor | None) -> Tensor:
        """fc6 of all columns heard -> fc7 of these columns."""
        return self._drop(self.activate(self.fc7(h_BD)), mask_BD)

    def layers(self) -> list[nn.Conv2d | nn.Linear]:
        """The eight layers of LAYERS, in their order."""
        return [getattr(self, name) for name in LAYERS]

    def _norm_pool(self, h_BCHW: Tensor, layer: int, late: bool = False) -> Tensor:
        """Nonlinearity, LRN where it follows `layer`, and overlapping max-pooling; the nonlinearity last where `late`."""
        c = self.config
        # rounding up, as in the 2012 code and Caffe; no window of the four profiles at its own input size is cut by it
        if c.nonlinearity == "relu" and layer not in c.pool_floor and not (layer == 2 and c.map_norm_alpha):
            h_BCHW = norm_pool(
                h_BCHW,
                rectify=not late,
                size=c.lrn_size if layer in c.lrn_after else 0,
                k=c.lrn_k,
                alpha=c.lrn_alpha,
                beta=c.lrn_beta,
                columns=1 if c.lrn_across else self.here,
                pool_size=c.pool_size,
                pool_stride=c.pool_stride,
            )
        else:
            h_BCHW = self._norm(h_BCHW, layer, rectified=not late)
            h_BCHW = F.max_pool2d(h_BCHW, c.pool_size, c.pool_stride, ceil_mode=layer not in c.pool_floor)
        return self.activate(h_BCHW) if late else h_BCHW

    def _norm(self, h_BCHW: Tensor, layer: int, rectified: bool = True) -> Tensor:
        c = self.config
        h_BCHW = self.activate(h_BCHW) if rectified else h_BCHW
        if layer not in c.lrn_after:
            return h_BCHW
        columns = 1 if c.lrn_across else self.here
        h_BCHW = local_response_norm(h_BCHW, size=c.lrn_size, k=c.lrn_k, alpha=c.lrn_alpha, beta=c.lrn_beta, columns=columns)
        if layer == 2 and c.map_norm_alpha:
            h_BCHW = map_norm(h_BCHW, size=5, k=1.0, alpha=c.map_norm_alpha, beta=c.lrn_beta)
        return h_BCHW

    def activate(self, h: Tensor) -> Tensor:
        """The nonlinearity of every layer but fc8."""
        return activated(h, self.config.nonlinearity)

    def _drop(self, h_BD: Tensor, mask_BD: Tensor | None) -> Tensor:
        # scaled up in training rather than down in testing: the same expectation as in the paper, section 4.2
        return h_BD if mask_BD is None else h_BD * mask_BD * (1 / (1 - self.config.dropout))


def shapes(config: AlexNetConfig) -> dict[str, tuple[int, ...]]:
    """The names and shapes of the weights of a network, which is not built."""
    with torch.device("meta"):
        return {name: tuple(tensor.shape) for name, tensor in AlexNet(config).state_dict().items()}
