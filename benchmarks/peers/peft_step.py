"""Training of token rows by PEFT on torch as a contender: python peft_step.py THREADS"""

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
    training = case.get("training")
    if training is None or "dir" not in case:
        return None
    base = AutoModelForCausalLM.from_pretrained(case["dir"], dtype=torch.float32)
    table = "wte" if base.config.model_type == "gpt2" else "embed_tokens"
    config = TrainableTokensConfig(token_indices=training["token_indices"], target_modules=[table])
    model = get_peft_model(base, config)
    model.train()
    rows = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(rows, lr=1e-3)
    batches = [torch.tensor(ids) for ids in training["batches"]]

    def loss(ids):
        return model(input_ids=ids, labels=ids).loss

    def step(ids):
        optimizer.zero_grad()
        loss(ids).backward()
        optimizer.step()

    def epoch():
        for ids in batches:
            step(ids)

    @torch.no_grad()
    def losses():
        return [loss(ids).item() for ids in batches]

    def trained_rows():
        for i in range(training["rowsAfter"]):
            step(batches[i % len(batches)])
        return rows[0].detach().flatten().tolist()

    run = losses if training.get("forward") else epoch
    return run, trained_rows if "rowsAfter" in training else losses, len(batches)


serve("PEFT", prepare)
