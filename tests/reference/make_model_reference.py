#!/usr/bin/env python3
"""Writes model_reference.json: what the model says of the first 1,024 tokens of Persuasion, in full attention.

    make_model_reference.py MODEL.gguf persuasion.txt

Also prints how far a run in float32 is from the float64 one that is written, which bounds what may be asked of
libmemtx.
"""

import hashlib
import json
import os
import sys

import numpy as np

import model_reference as reference
import tokenizer_reference

N_TOKENS = 1024
POSITIONS = [0, 1, 63, 255, 511, 512, 767, 1023]  # logits of these; row t predicts token t + 1
N_TOP = 10
FIXED_IDS = list(range(384, 49152, 768))  # 64 ids, spread over the vocabulary


def sha256_of_file(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main(model_path, text_path):
    with open(text_path, encoding="utf-8", newline="") as file:
        text = file.read()
    ids = tokenizer_reference.encode(tokenizer_reference.load(model_path), text)[:N_TOKENS]

    logits = reference.forward_full(reference.Model(model_path, np.float64), ids)
    nll = reference.nll_of_next(logits, ids)
    logits_f32 = reference.forward_full(reference.Model(model_path, np.float32), ids)
    nll_f32 = reference.nll_of_next(logits_f32, ids)
    print(f"mean NLL {nll.mean():.7f}, float32 {nll_f32.mean():.7f}")
    print(f"float32 against float64: NLL of a token {np.abs(nll - nll_f32).max():.1e}, a logit {np.abs(logits - logits_f32).max():.1e}")

    order = np.argsort(-logits, axis=1, kind="stable")[:, :N_TOP]  # [T][N_TOP]
    best = np.take_along_axis(logits, order, axis=1)
    lse = reference.logsumexp(logits)
    out = {
        "what": "full attention over the first tokens of Persuasion; made by make_model_reference.py",
        "model_sha256": sha256_of_file(model_path),
        "text": os.path.basename(text_path),
        "text_sha256": sha256_of_file(text_path),
        "n_tokens": N_TOKENS,
        "ids": ids,
        "mean_nll": significant_one(nll.mean(), 9),
        "nll": reference.significant(nll),  # of tokens 2 .. n_tokens
        "top1": order[:, 0].tolist(),  # of every position
        "margin": reference.significant(best[:, 0] - best[:, 1], 5),
        "fixed_ids": FIXED_IDS,
        "positions": [
            {
                "position": p,
                "logsumexp": significant_one(lse[p]),
                "top_ids": order[p].tolist(),
                "top_logits": reference.significant(best[p]),
                "margin": significant_one(best[p, 0] - best[p, 1]),
                "fixed_logits": reference.significant(logits[p, FIXED_IDS]),
            }
            for p in POSITIONS
        ],
    }
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "model_reference.json")
    with open(path, "w") as file:
        json.dump(out, file, separators=(",", ":"))
        file.write("\n")


def significant_one(value, digits=7):
    return reference.significant([value], digits)[0]


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
