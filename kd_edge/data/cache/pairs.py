"""Cached clips of several modalities, paired by sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from kd_edge.data.cache.frames import CachedClip, CachedClips
from kd_edge.data.dataset import Sample
from kd_edge.errors import DataError


class PairedClips:
    """Cached clips of several modalities, aligned by sample id.

    Args:
        caches: One per modality.
        samples: Requested samples, for example one side of a split; None for those of the first cache.
        givers: Sample id -> id of the sample whose clips replace its own in all modalities except the first, for
            control experiments.

    Attributes:
        samples: Samples with every modality, in the given order.
        dropped: Sample id -> missing modalities and the reasons.

    Raises:
        DataError: No sample is left.
    """

    def __init__(
        self,
        caches: Sequence[CachedClips],
        samples: Sequence[Sample] | None = None,
        givers: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.caches = tuple(caches)
        self._givers = givers
        wanted = caches[0].samples if samples is None else samples
        self.dropped: dict[str, str] = {}
        for sample in wanted:
            missing = [c for c in self.caches if sample.id not in c]
            if missing:
                self.dropped[sample.id] = "; ".join(f"{c.modality}: {_reason(c, sample.id)}" for c in missing)
        self.samples = tuple(s for s in wanted if s.id not in self.dropped)
        if not self.samples:
            why = next(iter(self.dropped.values()), "no sample was requested")
            raise DataError(
                f"no sample has all of {', '.join(c.modality for c in self.caches)}; the first lacks {why}",
                "samples with every modality",
                "kd-edge data check",
            )

    def __len__(self) -> int:
        return len(self.samples)

    def clips(self, index: int) -> tuple[CachedClip, ...]:
        """Return the clips of sample number ``index``, one per cache, in the order of the caches."""
        first, *others = self.caches
        giver = self.giver(index)
        return first.clip(self.samples[index].id), *(cache.clip(giver) for cache in others)

    def giver(self, index: int) -> str:
        """Return the id of the sample that provides the other modalities of sample number ``index``; see ``givers``."""
        sample_id = self.samples[index].id
        return self._givers.get(sample_id, sample_id)


def _reason(cache: CachedClips, sample_id: str) -> str:
    return cache.skipped.get(sample_id, "not prepared")
