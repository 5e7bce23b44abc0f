"""Fast-dLLM's threshold, with a confidence that fades with the number of masks to the left."""

from dataclasses import dataclass
from typing import ClassVar

from attn_sampler import rules, scores
from attn_sampler.errors import check_number
from attn_sampler.seam import Memory, Needs, Selection, Window


@dataclass(frozen=True)
class Fading:
    """Every position whose confidence, faded by the masks to its left, reaches the threshold."""

    name: ClassVar[str] = "fading"
    paper: ClassVar[str] = "none (an example)"

    threshold: float = 0.9
    decay: float = 0.02

    def __post_init__(self) -> None:
        check_number("threshold", self.threshold, low=0, high=1)
        check_number("decay", self.decay, low=0)

    @property
    def needs(self) -> Needs:
        return Needs()

    def select(self, window: Window, memory: Memory) -> Selection:
        to_the_left = (window.candidates.cumsum(1) - 1).clamp(min=0)
        score = scores.confidence(window) * (-self.decay * to_the_left).exp()
        return Selection(rules.threshold(score, window.candidates, window.quota, self.threshold), score)
