"""A training step of token rows by PEFT on torch as a contender: python peft_step.py THREADS"""

import sys

from serve import say_missing, serve

try:
    import torch
    from peft import TrainableTokensConfig, get_peft_model
    from transformers import AutoModelForCausalLM
except ImportError as error:
    say_missing(f"{error}; NEOLOG_PYTHON names a Python that has torch, transformers and peft")

torch.set_num_threads(int(sys.argv[1]) if len(sys.argv) > 1 else 1)


def prepare(case):
    if case["kernel"] != "step rows gpt2":
        return None
    batch, length, trained = case["shape"]
    base = AutoModelForCausalLM.from_pretrained(case["dir"], dtype=torch.float32)
    ids = [[((row * length + column) * 7919 + 13) % base.config.vocab_size for column in range(length)] for row in range(batch)]
    indices = [ids[0][i * length // trained] for i in range(trained)]
    model = get_peft_model(base, TrainableTokensConfig(token_indices=indices, target_modules=["wte"]))
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    input_ids = torch.tensor(ids)

    def loss():
        return model(input_ids=input_ids, labels=input_ids).loss

    def run():
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    def check():
        with torch.no_grad():
            return [loss().item()]

    return run, check


serve("PEFT", prepare)
