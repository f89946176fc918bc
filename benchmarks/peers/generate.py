"""Generation by transformers on torch as a contender: python generate.py THREADS"""

import sys

from serve import say_missing, serve

try:
    import torch
    from transformers import AutoModelForCausalLM
except ImportError as error:
    say_missing(f"{error}; NEOLOG_PYTHON names a Python that has torch and transformers")

torch.set_num_threads(int(sys.argv[1]) if len(sys.argv) > 1 else 1)


def prepare(case):
    if case["kernel"] != "generate gpt2":
        return None
    rows, length, new_tokens = case["shape"]
    model = AutoModelForCausalLM.from_pretrained(case["dir"], dtype=torch.float32)
    input_ids = torch.tensor([[(row * length + column) * 7919 + 13 for column in range(length)] for row in range(rows)])
    options = {"max_new_tokens": new_tokens, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}

    def run():
        return model.generate(input_ids, attention_mask=torch.ones_like(input_ids), **options)

    return run, lambda: [float(i) for row in run().tolist() for i in row[: length + 2]]


serve("transformers", prepare)
