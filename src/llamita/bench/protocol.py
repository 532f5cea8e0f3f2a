"""Protocol: what is measured, in llama-bench's words and numbers. It knows no model but its config.

pp512: read 512 tokens in one go, from a cache that holds `depth_tokens`. tg128: make 128 tokens one after the other, from
there. One warm-up, then the repetitions. Source: tools/llama-bench of llama.cpp.
"""

from dataclasses import asdict, dataclass, replace

from llamita.config import ModelConfig
from llamita.errors import SettingError


@dataclass(frozen=True)
class Protocol:
    """The numbers of a bench. batch: sequences at once, 1 for none. busy: also measure beside a process that keeps a core busy.

    start: also start `llamita run` in fresh processes, for the time to the first token and the peak of memory.
    """

    n_threads: int
    prompt_tokens: int = 512
    decode_tokens: int = 128
    depth_tokens: int = 0
    repetitions: int = 5
    batch: int = 8
    busy: bool = False
    start: bool = True

    def fitted(self, config: ModelConfig) -> "Protocol":
        """The protocol with what fits the model's context; raises SettingError when the depth alone does not."""
        room = config.context - self.depth_tokens
        if room < 1:
            raise SettingError(f"depth: found {self.depth_tokens}, expected less than the model's context, {config.context}")
        return replace(self, prompt_tokens=min(self.prompt_tokens, room), decode_tokens=min(self.decode_tokens, room))

    @property
    def context(self) -> int:
        """Positions that the cache needs."""
        return self.depth_tokens + max(self.prompt_tokens, self.decode_tokens)

    @property
    def prefill(self) -> str:
        """The name of the prefill test."""
        return f"pp{self.prompt_tokens}{self._depth}"

    @property
    def decode(self) -> str:
        """The name of the decode test."""
        return f"tg{self.decode_tokens}{self._depth}"

    @property
    def _depth(self) -> str:
        return f" @ d{self.depth_tokens}" if self.depth_tokens else ""

    def to_dict(self) -> dict[str, int | bool]:
        """The fields by name, for JSON."""
        return asdict(self)
