"""Modes `sinks` and `memory` of DESIGN.md, sections 3 and 4, in NumPy, straight from the text.

Takes a Model (model_reference.py), token ids and a Setting; gives the NLL of each token. Only what those sections
say is here: no store, no index, no batching. What a layer keeps between segments is three lists of rows (sinks,
window, memory), each row a key before RoPE, a value and its position in the document.

How the text is read where it leaves a choice:
  * the window counts W tokens beside the sinks: after the first segment of 512 with 4 sinks it holds 508 tokens, and the
    cache (sinks, window) never more than s + W;
  * position inside the cache = index in (sinks, window, segment), starting at 0, so the sinks stand right before the
    window whatever their distance in the document is;
  * a distance to a retrieved row is between positions in the document, of the query and of the row;
  * every query head has its own k rows; heads of one group share the keys that they search, not the hits;
  * rows are rounded to the store's type from float32; local attention uses the unrounded ones.
"""

from dataclasses import dataclass, field

import numpy as np

from model_reference import logsumexp, nll_of_next, rope, softmax_attention


@dataclass
class Setting:
    window: int = 512
    segment: int = 512
    sinks: int = 4
    memory_layers: tuple = ()  # none: mode `sinks`
    k: int = 32
    delta: int = 2048
    positions: str = "near"  # or "fixed": every row at distance delta
    a: float = 1.0  # joint: a = 1, b = 0; bias: a = 1, b given; paper: a = 0, b given
    b: float = 0.0
    row_type: type = np.float16  # None: not rounded


@dataclass
class Rows:
    """Tokens of one layer in ascending order: key before RoPE [N][G][D], value [N][G][D], position in the document [N]"""

    k: np.ndarray
    v: np.ndarray
    position: np.ndarray

    def __len__(self):
        return len(self.position)

    def __add__(self, other):
        return Rows(*(np.concatenate(pair) for pair in zip(self.parts(), other.parts())))

    def __getitem__(self, part):
        return Rows(*(array[part] for array in self.parts()))

    def parts(self):
        return self.k, self.v, self.position

    def rounded(self, row_type):
        if row_type is None:
            return self
        to_store = lambda x: x.astype(np.float32).astype(row_type).astype(x.dtype)
        return Rows(to_store(self.k), to_store(self.v), self.position)


@dataclass
class LayerState:
    sinks: Rows
    window: Rows
    memory: Rows


@dataclass
class Probe:
    """Asks for what the memory did for one query: filled in by run()."""

    layer: int
    position: int
    head: int
    hits: list = field(default_factory=list)  # row ids, best first
    scores: list = field(default_factory=list)  # R(delta) q . k
    lse_mem: float = 0.0
    lse_loc: float = 0.0


def local_attention(model, setting, q, cache, segment):
    """Each query over sinks, window and its own segment up to itself: V_loc [T][H][D], LSE_loc [T][H]"""
    visible = cache + segment
    positions = np.arange(len(visible))  # counted inside the cache
    query_positions = positions[len(cache) :]
    hidden = positions[None, :] > query_positions[:, None]
    turned_q = rope(q, query_positions[:, None], model.rope_base)
    turned_k = rope(visible.k, positions[:, None], model.rope_base)
    v_loc, lse_loc = np.empty_like(q), np.empty(q.shape[:2], dtype=q.dtype)
    for h in range(model.n_heads):
        g = model.kv_head(h)
        logits = turned_q[:, h] @ turned_k[:, g].T / np.sqrt(model.d)
        logits[hidden] = -np.inf
        v_loc[:, h], lse_loc[:, h] = softmax_attention(logits, visible.v[:, g])
    return v_loc, lse_loc


def search(model, setting, q_h, keys):
    """k best rows of each query: q_h [T][D], keys [N][D] -> row ids [T][min(k, N)] and scores, best first, ties to the lower id"""
    scores = rope(q_h, np.full(len(q_h), setting.delta), model.rope_base) @ keys.T  # R(delta) q . k
    # Equal keys are common (in layer 0 a key depends on its token alone), and a matrix product may round equal columns
    # differently: rounding makes them ties again, and the stable sort gives ties to the lower id.
    best = np.argsort(-np.round(scores, 9), axis=1, kind="stable")[:, : setting.k]
    return best, np.take_along_axis(scores, best, axis=1)


def memory_attention(model, setting, q, query_positions, memory, probes):
    """Each query over the rows it retrieves: V_mem [T][H][D], LSE_mem [T][H]"""
    v_mem, lse_mem = np.empty_like(q), np.empty(q.shape[:2], dtype=q.dtype)
    for h in range(model.n_heads):
        g = model.kv_head(h)
        hits, scores = search(model, setting, q[:, h], memory.k[:, g])
        distance = np.full(hits.shape, setting.delta)
        if setting.positions == "near":
            distance = np.minimum(query_positions[:, None] - memory.position[hits], setting.delta)
        turned = rope(q[:, h][:, None, :], distance, model.rope_base)  # R(distance) q: [T][k][D]
        logits = np.einsum("tkd,tkd->tk", turned, memory.k[hits, g]) / np.sqrt(model.d)
        lse_mem[:, h] = logsumexp(logits)
        weights = np.exp(logits - lse_mem[:, h][:, None])
        v_mem[:, h] = np.einsum("tk,tkd->td", weights, memory.v[hits, g])
        for probe in probes:
            if probe.head == h:
                t = probe.position - query_positions[0]
                probe.hits, probe.scores = hits[t].tolist(), scores[t].tolist()
    return v_mem, lse_mem


def blend(setting, v_loc, lse_loc, v_mem, lse_mem):
    gate = 1 / (1 + np.exp(-(setting.a * (lse_mem - lse_loc) + setting.b)))
    return gate[..., None] * v_mem + (1 - gate)[..., None] * v_loc


def evict(setting, state, segment):
    """After a segment: the first tokens of a document become sinks, the newest W stay, the rest goes into the memory."""
    n_new_sinks = min(setting.sinks - len(state.sinks), len(segment))
    sinks = state.sinks + segment[:n_new_sinks]
    kept = state.window + segment[n_new_sinks:]
    n_evicted = max(0, len(kept) - setting.window)
    return LayerState(sinks, kept[n_evicted:], state.memory + kept[:n_evicted].rounded(setting.row_type))


def run(model, ids, setting, probes=(), keep_logits=False):
    """-> NLL of ids[1..] [len(ids) - 1], and the logits [len(ids)][V] if asked for"""
    none = np.empty((0, model.n_kv_heads, model.d), dtype=model.dtype)
    nothing = Rows(none, none, np.empty(0, dtype=np.int64))
    states = [LayerState(nothing, nothing, nothing) for _ in model.layers]
    nll, all_logits = [], []
    for start in range(0, len(ids), setting.segment):
        segment_ids = ids[start : start + setting.segment]
        positions = start + np.arange(len(segment_ids))  # in the document
        x = model.embed(segment_ids)
        for i, layer in enumerate(model.layers):
            state = states[i]
            q, k, v = model.qkv(layer, x)
            segment = Rows(k, v, positions)
            attended, lse_loc = local_attention(model, setting, q, state.sinks + state.window, segment)
            if i in setting.memory_layers and len(state.memory):  # searched before anything of this segment is appended
                here = [p for p in probes if p.layer == i and positions[0] <= p.position <= positions[-1]]
                v_mem, lse_mem = memory_attention(model, setting, q, positions, state.memory, here)
                for p in here:
                    p.lse_mem, p.lse_loc = (float(lse[p.position - start, p.head]) for lse in (lse_mem, lse_loc))
                attended = blend(setting, attended, lse_loc, v_mem, lse_mem)
            x = model.finish_block(layer, x, attended)
            states[i] = evict(setting, state, segment)
            check_exactly_once(states[i], positions[-1] + 1)
        logits = model.logits(x)
        nll.append(nll_of_next(logits, ids[start : start + len(segment_ids) + 1]))
        if keep_logits:
            all_logits.append(logits)
    return np.concatenate(nll), np.concatenate(all_logits) if keep_logits else None


def check_exactly_once(state, n_read):
    """Each token read so far is in exactly one of {sinks, window, memory}."""
    held = np.concatenate([state.sinks.position, state.memory.position, state.window.position])
    assert np.array_equal(held, np.arange(n_read))
