"""The decoder of architecture `llama`, in NumPy, as the papers write it.

Takes a GGUF file (weights dequantised by the PyPI package `gguf`) and token ids; gives logits and the loss of
each token. It is the specification that libmemtx is compared with, so it is as plain as it can be: one function
for one formula, a loop over heads, no cache, no tricks. Everything is computed in float64 unless told otherwise: the
reference then has no rounding of its own worth speaking of, and a difference is the other side's.

    RMSNorm  (Zhang, Sennrich 2019)     y = x / sqrt(mean(x^2) + eps) * w
    RoPE     (Su et al. 2021)           pair (x[2i], x[2i+1]) at position p turns by p * base^(-2i/d); GGUF files of this
                                        architecture hold q and k permuted so that the pairs are adjacent
    GQA      (Ainslie et al. 2023)      query head h reads key/value head h // (H / G)
    SwiGLU   (Shazeer 2020)             down(silu(gate(x)) * up(x))
    block    (Touvron et al. 2023)      x += attention(norm(x)); x += ffn(norm(x))

Shapes: T tokens, C channels, H heads, G key/value heads, D head size, V vocabulary.
"""

from dataclasses import dataclass

import gguf
import numpy as np


@dataclass
class Layer:
    attn_norm: np.ndarray  # [C]
    wq: np.ndarray  # [H*D][C]
    wk: np.ndarray  # [G*D][C]
    wv: np.ndarray  # [G*D][C]
    wo: np.ndarray  # [C][H*D]
    ffn_norm: np.ndarray  # [C]
    w_gate: np.ndarray  # [F][C]
    w_up: np.ndarray  # [F][C]
    w_down: np.ndarray  # [C][F]


class Model:
    """The weights and the facts of one GGUF file."""

    def __init__(self, path, dtype=np.float64):
        reader = gguf.GGUFReader(path)
        fact = lambda key: reader.get_field(key).contents()
        if fact("general.architecture") != "llama":
            raise ValueError("the reference knows architecture llama only")
        self.dtype = dtype
        self.n_layers = fact("llama.block_count")
        self.n_heads = fact("llama.attention.head_count")
        self.n_kv_heads = fact("llama.attention.head_count_kv")
        self.n_channels = fact("llama.embedding_length")
        self.d = self.n_channels // self.n_heads
        self.eps = fact("llama.attention.layer_norm_rms_epsilon")
        self.rope_base = fact("llama.rope.freq_base")
        assert fact("llama.rope.dimension_count") == self.d

        tensors = {t.name: t for t in reader.tensors}
        assert "rope_freqs.weight" not in tensors

        def weight(name):
            t = tensors[name]
            return gguf.dequantize(t.data, t.tensor_type).astype(dtype)

        self.embedding = weight("token_embd.weight")  # [V][C]
        self.output_norm = weight("output_norm.weight")  # [C]
        self.output = weight("output.weight") if "output.weight" in tensors else self.embedding  # [V][C]
        self.layers = []
        for i in range(self.n_layers):
            block = lambda name: weight(f"blk.{i}.{name}.weight")
            self.layers.append(
                Layer(
                    block("attn_norm"), block("attn_q"), block("attn_k"), block("attn_v"), block("attn_output"),
                    block("ffn_norm"), block("ffn_gate"), block("ffn_up"), block("ffn_down"),
                )
            )  # fmt: skip

    def embed(self, ids):
        """[T] token ids -> [T][C]"""
        return self.embedding[np.asarray(ids)]

    def qkv(self, layer, x):
        """The residual stream [T][C] -> q [T][H][D], k and v [T][G][D], none of them rotated."""
        n = rms_norm(x, layer.attn_norm, self.eps)
        return (
            (n @ layer.wq.T).reshape(len(x), self.n_heads, self.d),
            (n @ layer.wk.T).reshape(len(x), self.n_kv_heads, self.d),
            (n @ layer.wv.T).reshape(len(x), self.n_kv_heads, self.d),
        )

    def kv_head(self, h):
        return h // (self.n_heads // self.n_kv_heads)

    def finish_block(self, layer, x, attended):
        """Adds attention's output [T][H][D] and the feed-forward net to the residual stream [T][C]."""
        x = x + attended.reshape(len(x), -1) @ layer.wo.T
        n = rms_norm(x, layer.ffn_norm, self.eps)
        return x + (silu(n @ layer.w_gate.T) * (n @ layer.w_up.T)) @ layer.w_down.T

    def logits(self, x):
        """[T][C] -> [T][V]"""
        return rms_norm(x, self.output_norm, self.eps) @ self.output.T


def rms_norm(x, w, eps):
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps) * w


def silu(x):
    return x / (1 + np.exp(-x))


def rope(x, positions, base):
    """Turns the adjacent pairs of x [...][D] to the positions [...] (broadcast); angles in float64."""
    d = x.shape[-1]
    frequency = float(base) ** (-np.arange(0, d, 2, dtype=np.float64) / d)  # [D/2]
    angle = np.asarray(positions, dtype=np.float64)[..., None] * frequency
    cos, sin = np.cos(angle).astype(x.dtype), np.sin(angle).astype(x.dtype)
    even, odd = x[..., 0::2], x[..., 1::2]
    out = np.empty(np.broadcast_shapes(x.shape, angle.shape[:-1] + (d,)), dtype=x.dtype)
    out[..., 0::2] = even * cos - odd * sin
    out[..., 1::2] = even * sin + odd * cos
    return out


def logsumexp(a):
    """Over the last axis."""
    m = a.max(axis=-1, keepdims=True)
    return (m + np.log(np.sum(np.exp(a - m), axis=-1, keepdims=True)))[..., 0]


def softmax_attention(logits, values):
    """logits [T][N] (-inf where hidden), values [N][D] -> their average [T][D] and the log-sum-exp [T]"""
    lse = logsumexp(logits)
    return np.exp(logits - lse[:, None]) @ values, lse


def forward_full(model, ids):
    """Full causal attention over the whole text, positions 0, 1, ..: [T] token ids -> logits [T][V]"""
    n_tokens = len(ids)
    positions = np.arange(n_tokens)
    hidden = positions[None, :] > positions[:, None]  # a query must not see what comes after it
    x = model.embed(ids)
    for layer in model.layers:
        q, k, v = model.qkv(layer, x)
        q = rope(q, positions[:, None], model.rope_base)
        k = rope(k, positions[:, None], model.rope_base)
        attended = np.empty_like(q)
        for h in range(model.n_heads):
            g = model.kv_head(h)
            a = q[:, h] @ k[:, g].T / np.sqrt(model.d)
            a[hidden] = -np.inf
            attended[:, h], _ = softmax_attention(a, v[:, g])
        x = model.finish_block(layer, x, attended)
    return model.logits(x)


def nll_of_next(logits, ids):
    """logits [T][V] of tokens ids[0..T-1], ids [T] or [T+1] -> the NLL in nats of ids[1..], each from the row before it"""
    following = np.asarray(ids)[1:]
    rows = np.arange(len(following))
    return logsumexp(logits)[rows] - logits[rows, following]


def significant(values, digits=7):
    """Rounded for a file: floats with that many significant digits."""
    return [float(f"{v:.{digits}g}") for v in np.asarray(values).ravel()]
