"""Language models for the Evaluation Harness: its LM interface over LanguageModel."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from instructgpt.errors import UserError
from instructgpt.inference import LanguageModel

_LONGEST = 256  # tokens of a completion whose task states no limit
# Settings of a task that say what completions do anyway.
_UNUSED: dict[str, tuple[Any, ...]] = {"num_beams": (1,), "top_k": (0, None)}


class TokenLogProb(float):
    """A log-likelihood in nats that knows its number of tokens.

    The harness passes it on to a task's metrics as any float; `acc_token` of our task
    files divides by `num_tokens`.
    """

    num_tokens: int

    def __new__(cls, log_prob: float, num_tokens: int) -> "TokenLogProb":
        """Makes the number."""
        self = super().__new__(cls, log_prob)
        self.num_tokens = num_tokens
        return self


class HarnessModel(LM):
    """A language model that the harness asks raw texts, without a template.

    A text that is too long for the context loses its beginning.
    """

    def __init__(
        self,
        model: LanguageModel,
        *,
        batch_size: int | None = None,
        name: str = "",
        keep: Path | None = None,
    ):
        """Wraps a model.

        Args:
          model: The model.
          batch_size: Rows of a batch; None: 64 or less.
          name: Name at the start of progress lines; "": no lines.
          keep: A folder that stores what the model has said, so that an evaluation
            resumes after a kill; see `LanguageModel.generate`.
        """
        super().__init__()
        self._model = model
        self._batch_size = batch_size
        self._name = name
        self._folder = keep
        self._calls = itertools.count()

    def loglikelihood(
        self, requests: Sequence[Instance]
    ) -> list[tuple[TokenLogProb, bool]]:
        """Log-likelihoods of continuations, encoded together with their contexts."""
        pairs = [request.args for request in requests]
        found = self._model.log_likelihood(pairs, raw=True, **self._how("choices"))
        return [(TokenLogProb(f.log_prob, f.num_tokens), f.greedy) for f in found]

    def loglikelihood_rolling(self, requests: Sequence[Instance]) -> list[float]:
        """Log-likelihoods of whole texts, in windows of the context's length."""
        form, owners, pairs = self._model.text.prompt_format, [], []
        for number, request in enumerate(requests):
            (text,) = request.args
            windows = get_rolling_token_windows(
                form.prompt_ids({"prompt": text}, raw=True),
                prefix_token=form.tokenizer.eos_id,
                max_seq_len=self._model.model.config.context_length - 1,
                context_len=1,
            )
            for window in windows:
                before, target = make_disjoint_window(window)
                pairs.append((list(before), list(target)))
                owners.append(number)
        found = self._model.token_log_likelihood(pairs, **self._how("texts"))
        totals = [0.0] * len(requests)
        for number, part in zip(owners, found, strict=True):
            totals[number] += part.log_prob
        return totals

    def generate_until(self, requests: Sequence[Instance]) -> list[str]:
        """Completions up to the first of each request's `until`, without it."""
        by_settings: dict[str, list[int]] = {}
        for number, request in enumerate(requests):
            settings = sorted(request.args[1].items())
            by_settings.setdefault(repr(settings), []).append(number)
        found: dict[int, str] = {}
        for numbers in by_settings.values():
            texts = [requests[number].args[0] for number in numbers]
            how = self._sampling(requests[numbers[0]].args[1])
            completions = self._model.complete(texts, **how, **self._how("answers"))
            found.update(zip(numbers, completions, strict=True))
        return [found[number] for number in range(len(requests))]

    def _sampling(self, settings: dict[str, Any]) -> dict[str, Any]:
        """The arguments of `complete` for a task's generation_kwargs."""
        until = settings.get("until") or []
        limit = settings.get("max_gen_toks") or settings.get("max_new_tokens")
        drawn = settings.get("do_sample", settings.get("temperature", 0) > 0)
        known = {"until", "max_gen_toks", "max_new_tokens", "do_sample"}
        unknown = settings.keys() - known - {"temperature", "top_p"}
        unknown -= {name for name in unknown if settings[name] in _UNUSED.get(name, ())}
        if unknown:
            raise UserError(
                f"a task asks for generation_kwargs that completions do not have: "
                f"{', '.join(sorted(unknown))}"
            )
        return {
            "stops": (until,) if isinstance(until, str) else tuple(until),
            "max_response": min(limit or _LONGEST, self._half()),
            "temperature": settings.get("temperature", 1.0) if drawn else 0.0,
            "top_p": settings.get("top_p", 1.0),
        }

    def _half(self) -> int:
        """Half of the context: no completion takes more of it from its text."""
        return self._model.model.config.context_length // 2

    def _how(self, kind: str) -> dict[str, Any]:
        """The batch size, the progress line and the folder of a call."""
        call = next(self._calls)
        keep = self._folder and self._folder / f"{call}-{kind}"
        name = f"{self._name} {kind}" if self._name else ""
        return {"batch_size": self._batch_size, "name": name, "keep": keep}
