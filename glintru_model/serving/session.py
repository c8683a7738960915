"""A user's session, event by event: what the model needs to remember has one size, however long the history.

A causal GLINT-RU carries its own state, so an event costs the same after ten events and after a million, and every
event counts. Other models keep the newest `max_seq_len` items. The reply says which of the two it was.

Shapes: D width, V items.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from glintru_model.errors import InputError
from glintru_model.models.best import best_first
from glintru_model.models.glintru import GLINTRU
from glintru_model.models.glintru_experts import BlockState
from glintru_model.serving.recommender import ItemId, Recommendation, Recommender

_HEADER = "session"
_SEEN = "seen"


@dataclass(frozen=True)
class SessionReply(Recommendation):
    """A recommendation, and what of the history it rests on.

    Attributes:
        history_rule: `all events`, or `last N events` where the model looks no further back.
        num_events: known events that were fed so far.
    """

    history_rule: str
    num_events: int


class _Memory(Protocol):
    """What of a history a model needs to go on."""

    rule: str

    def add(self, item: int) -> None: ...
    def hidden(self) -> Tensor: ...
    def tensors(self) -> dict[str, Tensor]: ...
    def restore(self, tensors: dict[str, Tensor]) -> None: ...


class Session:
    """One user's history and the recommendations after each of its events."""

    def __init__(self, recommender: Recommender) -> None:
        self._recommender = recommender
        model = recommender.model
        carried = isinstance(model, GLINTRU) and model.causal
        self._memory: _Memory = _Carried(recommender) if carried else _Window(recommender)
        self._seen_V1 = torch.zeros(model.num_items + 1, dtype=torch.bool)
        self.num_events = self.num_unknown_items = 0

    def add(self, *item_ids: ItemId) -> None:
        """Feed events, oldest first; unknown items are skipped and counted.

        Raises:
            InputError: an id is of the wrong type; then none of them was fed.
        """
        for item in self._recommender.indices(item_ids, "events").tolist():
            if item == 0:
                self.num_unknown_items += 1
                continue
            self._memory.add(item)
            self._seen_V1[item] = True
            self.num_events += 1

    def recommend(self, k: int = 10, *, filter_seen: bool = True, exclude: Sequence[ItemId] = ()) -> SessionReply:
        """Rank the catalogue after the events so far; popularity ranks where none is known.

        Args:
            k: items wanted, 1..V.
            filter_seen: leave out every item of the session.
            exclude: items to leave out.

        Raises:
            InputError: one line that names what cannot be used.
        """
        recommender = self._recommender
        recommender.check(k, filter_seen)
        excluded = recommender.indices(exclude, "exclude")
        with torch.no_grad():
            by_model = self.num_events > 0
            scores_V1 = recommender.popularity_V1.clone()
            if by_model:
                scores_V1 = recommender.model.score(self._memory.hidden())[0]
        scores_V1[torch.from_numpy(excluded[excluded > 0]).long()] = -torch.inf
        if filter_seen:
            scores_V1[self._seen_V1] = -torch.inf
        items, scores = (best.cpu().numpy() for best in best_first(scores_V1[None], int(k)))
        found = items[0] > 0
        return SessionReply(
            item_ids=recommender.vocabulary.item_ids.take(items[0][found] - 1).to_pylist(),
            scores=scores[0][found].tolist(),
            num_unknown_items=self.num_unknown_items,
            ranked_by="model" if by_model else "popularity",
            history_rule=self._memory.rule,
            num_events=self.num_events,
        )

    def to_bytes(self) -> bytes:
        """Pack the session, e.g. for a store between two requests; no pickle."""
        header = {
            "model": _fingerprint(self._recommender),
            "num_events": self.num_events,
            "num_unknown_items": self.num_unknown_items,
        }
        seen = torch.from_numpy(np.packbits(self._seen_V1.numpy()))
        tensors = {name: tensor.contiguous().clone() for name, tensor in self._memory.tensors().items()}
        return bytes(save({_SEEN: seen, **tensors}, metadata={_HEADER: json.dumps(header)}))

    @classmethod
    def from_bytes(cls, recommender: Recommender, packed: bytes) -> "Session":
        """Go on with what `to_bytes` packed.

        Raises:
            InputError: these are no session's bytes, or those of another model.
        """
        session = cls(recommender)
        try:
            length = int.from_bytes(packed[:8], "little")
            header = json.loads(json.loads(packed[8 : 8 + length])["__metadata__"][_HEADER])
            tensors = load(packed)
            if header["model"] != _fingerprint(recommender):
                raise InputError("session: packed by another model, start a new one and feed it the history")
            session.num_events, session.num_unknown_items = int(header["num_events"]), int(header["num_unknown_items"])
            seen_V1 = np.unpackbits(tensors.pop(_SEEN).numpy())[: len(session._seen_V1)].astype(bool)
            session._seen_V1.copy_(torch.from_numpy(seen_V1))
            session._memory.restore(tensors)
        except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
            raise InputError(f"session of {len(packed)} bytes: not what a session was packed into") from error
        return session


class _Carried:
    """The state of a causal GLINT-RU."""

    rule = "all events"

    def __init__(self, recommender: Recommender) -> None:
        assert isinstance(recommender.model, GLINTRU)
        self._model = recommender.model
        self._state = self._model.initial_state(1)
        self._hidden_1D = self._state[0].gru_hidden  # zeros, on the model's device

    def add(self, item: int) -> None:
        with torch.no_grad():
            device = self._model.item_embedding.weight.device
            self._hidden_1D, self._state = self._model.step(torch.tensor([item], device=device), self._state)

    def hidden(self) -> Tensor:
        return self._hidden_1D

    def tensors(self) -> dict[str, Tensor]:
        blocks = {
            f"{block}.{name}": tensor
            for block, state in enumerate(self._state)
            for name, tensor in state._asdict().items()
        }
        return {"hidden": self._hidden_1D, **blocks}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        for name, tensor in self.tensors().items():
            if (tensors[name].shape, tensors[name].dtype) != (tensor.shape, tensor.dtype):
                raise ValueError(f"{name} is {tuple(tensors[name].shape)}, expected {tuple(tensor.shape)}")
        device = self._hidden_1D.device
        self._hidden_1D = tensors["hidden"].to(device)
        self._state = tuple(
            BlockState(**{name: tensors[f"{block}.{name}"].to(device) for name in BlockState._fields})
            for block in range(len(self._state))
        )


class _Window:
    """The newest items, encoded again at every reply."""

    def __init__(self, recommender: Recommender) -> None:
        self._model = recommender.model
        self.rule = f"last {self._model.max_seq_len} events"
        self._items: list[int] = []

    def add(self, item: int) -> None:
        self._items = [*self._items, item][-self._model.max_seq_len :]

    def hidden(self) -> Tensor:
        device = self._model.item_embedding.weight.device
        items_1L = torch.tensor([self._items], device=device)
        return self._model.last_hidden(items_1L, torch.tensor([len(self._items)], device=device))

    def tensors(self) -> dict[str, Tensor]:
        return {"items": torch.tensor(self._items, dtype=torch.int32)}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        items = tensors["items"].tolist()
        if len(items) > self._model.max_seq_len or not all(1 <= item <= self._model.num_items for item in items):
            raise ValueError("items that the model does not have")
        self._items = items


def _fingerprint(recommender: Recommender) -> str:
    """Hash the item table, once per recommender: a state fits only the weights that it comes from."""
    known: Any = getattr(recommender, "_session_fingerprint", None)
    if known is None:
        weights = recommender.model.item_embedding.weight.detach().cpu().contiguous().numpy()
        known = hashlib.blake2b(weights.tobytes(), digest_size=16).hexdigest()
        recommender._session_fingerprint = known  # type: ignore[attr-defined]
    return str(known)
