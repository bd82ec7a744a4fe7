"""The rules of each benchmark, by name: which frames count, how files are read, in which order means are taken.

Papers that name the same data set and the same measure have scored it by different rules; docs/EVALUATION.md
lists what moves a number and by how much. A protocol is data only: `hmhi.evaluation.runner` applies it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from hmhi.errors import UserError
from hmhi.evaluation.saliency import Definitions

Averaging = Literal["curve-of-videos", "curve-of-frames", "maxima-of-videos", "f-of-mean-precision-recall"]
Item = TypeVar("Item")


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """What every protocol states."""

    name: str
    """How ``--protocol`` calls it."""
    rule: str
    """One line for ``--protocol list``."""
    source: str
    """Who scores like this."""
    datasets: tuple[str, ...] = ()
    """Data sets that use it where no protocol is named, by the names of `hmhi.data.catalog` and others."""
    videos: int | None = None
    """Sequences of the full benchmark; another number is reported as a subset."""
    drop_ends: bool = False
    """Leave out the first and the last annotated frame of each sequence."""
    sparse: bool = False
    """Only some frames are annotated, so predictions without annotation are expected."""

    def counted(self, annotated: Sequence[Item]) -> Sequence[Item]:
        """Those of a sequence's annotated frames, in order, that count; whatever stands for a frame."""
        return annotated[1:-1] if self.drop_ends else annotated


@dataclass(frozen=True, kw_only=True)
class MaskProtocol(Protocol):
    """Rules for binary masks, scored by J and F."""

    threshold: int = 127
    """Grey levels above it are foreground; palette masks are foreground where the index is not 0."""
    stretch: bool = False
    """Stretch soft maps to the full range (min-max) before the threshold."""
    resize: Literal["none", "bilinear"] = "none"
    """What happens to a prediction of another size: an error, or a bilinear resize before the threshold."""
    skip_empty_truth: bool = False
    """Leave out frames in which nothing is annotated."""
    trim_statistics: bool = False
    """Take recall and decay, though not the mean, without each sequence's first and last frame."""
    round_means: bool = False
    """Round the means of J and of F to three decimals before they are averaged to J&F."""
    by_class: bool = False
    """Also average over classes, named by the letters that a sequence's name begins with."""


@dataclass(frozen=True, kw_only=True)
class ObjectProtocol(Protocol):
    """Rules for masks of several objects, scored by J and F of each; means are over objects, not over sequences."""

    objects: Literal["first-frame", "any-frame", "listed"] = "first-frame"
    """A sequence's objects: 1 to the largest id of its first annotation; every id from the frame where it first is
    annotated; or those of a ``meta.json``, in the frames that it lists for them after the first."""


@dataclass(frozen=True, kw_only=True)
class MapProtocol(Protocol):
    """Rules for soft saliency maps, scored by MAE, F, E, S and weighted F."""

    stretch: bool = True
    """Stretch each map to the full range (min-max)."""
    definitions: Definitions = "toolbox"
    """Whose definitions of E and S, see `hmhi.evaluation.saliency`."""
    averaging: Averaging = "curve-of-videos"
    """What is averaged before the maximum over thresholds is taken."""


DAVIS_TOOLKIT = "Perazzi et al., CVPR 2016, and the official DAVIS toolkit, which scores masks[1:-1]"
VSOD_TOOLBOX = "Fan et al., CVPR 2019: the DAVSOD toolbox (frames 2 to N-1, means of videos, then maxima)"
RELEASE = "the code that the authors of HMHI-Net published with the paper"


def _release_masks(name: str, rule: str, *, stretch: bool) -> MaskProtocol:
    """The release stretches when it writes maps, and thresholds when it reads them back."""
    return MaskProtocol(
        name=name,
        rule=rule,
        source=RELEASE,
        sparse=True,
        threshold=128,
        stretch=stretch,
        resize="bilinear",
        trim_statistics=True,
        round_means=True,
    )


MASK_PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        MaskProtocol(
            name="davis16",
            rule="first and last frame left out, mean of frames, then of sequences",
            source=DAVIS_TOOLKIT,
            datasets=("davis16",),
            videos=20,
            drop_ends=True,
        ),
        MaskProtocol(
            name="all-frames",
            rule="every annotated frame, mean of frames, then of sequences",
            source="Isomer, and unsupervised DAVIS 2017 (Caelles et al., 2019)",
            datasets=("synthetic", "sample"),
        ),
        _release_masks(
            "release",
            "every frame; soft maps stretched, then > 128; recall and decay without the ends; rounded",
            stretch=True,
        ),
        _release_masks(
            "release-eval",
            "as release, without the stretch: for maps that were stretched when they were written",
            stretch=False,
        ),
        MaskProtocol(
            name="fbms",
            rule="annotated frames only, all moving objects merged, mean of frames, then of sequences",
            source="Ochs et al., TPAMI 2014 (FBMS-59 test set), objects merged as unsupervised methods do",
            datasets=("fbms",),
            videos=30,
            sparse=True,
        ),
        MaskProtocol(
            name="fbms-nonempty",
            rule="as fbms, without annotated frames that hold no object",
            source="TMO and its successors",
            videos=30,
            sparse=True,
            skip_empty_truth=True,
        ),
        MaskProtocol(
            name="ytobj",
            rule="annotated frames only; mean of sequences, and per class and mean of classes beside it",
            source="Prest et al., CVPR 2012, with the masks of Jain and Grauman, ECCV 2014",
            datasets=("ytobj",),
            videos=126,
            sparse=True,
            by_class=True,
        ),
        MaskProtocol(
            name="long-videos",
            rule="annotated frames only, mean of frames, then of the three sequences",
            source="Liang et al., NeurIPS 2020 (Long-Videos)",
            datasets=("long-videos", "longvideos"),
            videos=3,
            sparse=True,
        ),
    )
}

OBJECT_PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        ObjectProtocol(
            name="davis17",
            rule="ids of the first annotation; first and last frame left out; mean of frames, then of all objects",
            source="Pont-Tuset et al., 2017 (semi-supervised DAVIS 2017), and the official davis2017-evaluation",
            datasets=("davis17",),
            videos=30,
            drop_ends=True,
        ),
        ObjectProtocol(
            name="svos-all-frames",
            rule="every id from its first annotated frame on; mean of frames, then of all objects",
            source="unsupervised DAVIS 2017 and sets like MOSE, where objects may appear late",
            objects="any-frame",
        ),
        ObjectProtocol(
            name="ytvos",
            rule="the frames that meta.json lists for an object, after the one its mask is given at; means of "
            "objects, apart for seen and unseen categories; G is the mean of the four",
            source="Xu et al., 2018 (YouTube-VOS). Its server's code is not public: this is for parts of train that "
            "are held out, not for val",
            datasets=("ytvos", "ytvos18", "ytvos19"),
            sparse=True,
            objects="listed",
        ),
    )
}


def _toolbox(name: str, videos: int, *datasets: str, sparse: bool = True) -> MapProtocol:
    return MapProtocol(
        name=name,
        rule="first and last annotated frame left out, curves averaged over frames and videos, then maxima",
        source=VSOD_TOOLBOX,
        datasets=(name, *datasets),
        videos=videos,
        drop_ends=True,
        sparse=sparse,
    )


MAP_PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        MapProtocol(
            name="vsod",
            rule="any data set by the toolbox's rules: ends left out, curves of videos averaged, then maxima",
            source=VSOD_TOOLBOX,
            datasets=("davsod_validation",),
            drop_ends=True,
            sparse=True,
        ),
        _toolbox("davsod-easy", 35, "davsod"),
        _toolbox("davsod-normal", 25, "davsod_normal"),
        _toolbox("davsod-difficult", 20, "davsod_difficult"),
        _toolbox("davis16", 20, sparse=False),
        _toolbox("visal", 17),
        _toolbox("fbms", 30),
        MapProtocol(
            name="release",
            rule="as vsod, with the release's definitions of E and S",
            source=RELEASE,
            drop_ends=True,
            sparse=True,
            definitions="release",
        ),
        MapProtocol(
            name="release-eval",
            rule="as release, without the stretch: for maps that were stretched when they were written",
            source=RELEASE,
            drop_ends=True,
            sparse=True,
            stretch=False,
            definitions="release",
        ),
        MapProtocol(
            name="vsod-all-frames",
            rule="as vsod, with every annotated frame",
            source="PySODMetrics applied to each video",
            datasets=("synthetic", "sample"),
            sparse=True,
        ),
        MapProtocol(
            name="vsod-pooled",
            rule="every annotated frame counts the same, whatever its video",
            source="PySODMetrics applied to a whole data set, as for still images",
            sparse=True,
            averaging="curve-of-frames",
        ),
        MapProtocol(
            name="vsod-video-maxima",
            rule="as vsod, with the maximum taken in each video and then averaged",
            source="an alternative, named so that it can be told apart",
            drop_ends=True,
            sparse=True,
            averaging="maxima-of-videos",
        ),
        MapProtocol(
            name="vsod-mean-pr",
            rule="as vsod, with max F and mean F taken from the mean precision and the mean recall",
            source="Achanta et al., CVPR 2009, and many still-image papers",
            drop_ends=True,
            sparse=True,
            averaging="f-of-mean-precision-recall",
        ),
        MapProtocol(
            name="vsod-raw",
            rule="as vsod, without the min-max stretch of each map",
            source="the probabilities as the network gave them",
            drop_ends=True,
            sparse=True,
            stretch=False,
        ),
    )
}


P = TypeVar("P", bound=Protocol)


def find_protocol(table: Mapping[str, P], name: str | None, dataset: str | None, default: str) -> P:
    """Choose a protocol by its own name, else by the data set's, else the default.

    Args:
        table: `MASK_PROTOCOLS` or `MAP_PROTOCOLS`.
        name: Name of a protocol; wins over the data set.
        dataset: Name of a data set, such as ``fbms``.
        default: Name of the protocol that is taken where neither is given.

    Raises:
        UserError: A name is unknown; the message lists the known ones.
    """
    if name is not None:
        if name not in table:
            raise UserError(f"unknown protocol {name!r}; known are {', '.join(table)}")
        return table[name]
    if dataset is not None:
        for protocol in table.values():
            if dataset in protocol.datasets:
                return protocol
        known = [known for protocol in table.values() for known in protocol.datasets]
        raise UserError(
            f"no protocol belongs to data set {dataset!r} (known: {', '.join(known)}); name one by --protocol"
        )
    return table[default]
