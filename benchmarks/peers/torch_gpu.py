"""PyTorch and PEFT on a CUDA card, as lines of JSON: products of float32, with and without TF32, and the GPT-2 steps of bench:gpu."""

import json
import time


def say(**line):
    print(json.dumps(line), flush=True)


def least_ms(call):
    import torch

    call()
    least = float("inf")
    for _ in range(5):
        torch.cuda.synchronize()
        start = time.perf_counter()
        call()
        torch.cuda.synchronize()
        least = min(least, time.perf_counter() - start)
    return least * 1000


def products(torch):
    for name, tf32 in (("torch, float32", False), ("torch, TF32", True)):
        torch.backends.cuda.matmul.allow_tf32 = tf32
        for n in (1024, 2048, 4096, 8192):
            a, b = (torch.randn(n, n, device="cuda") for _ in range(2))
            say(what=f"matmul {n}³", who=name, value=2 * n**3 / least_ms(lambda: a @ b) / 1e6, unit="GFLOP/s")
    torch.backends.cuda.matmul.allow_tf32 = False


def steps(torch):
    from peft import TrainableTokensConfig, get_peft_model
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(attn_pdrop=0, embd_pdrop=0, resid_pdrop=0)).to("cuda")
    model = get_peft_model(model, TrainableTokensConfig(token_indices=[1, 2, 3, 4], target_modules=["wte"]))
    rows = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(rows, lr=1e-3)
    for batch, length in ((1, 128), (8, 512), (8, 1024)):
        ids = torch.arange(batch * length, device="cuda").reshape(batch, length) % 1000

        def step():
            optimizer.zero_grad()
            model(input_ids=ids, labels=ids).loss.backward()
            optimizer.step()

        ms = least_ms(step)
        say(what=f"step, GPT-2 small, {batch}×{length}", who="PEFT on torch, float32", value=ms, unit="ms")


try:
    import torch

    if not torch.cuda.is_available():
        say(missing="PyTorch on the same card: torch finds no CUDA device")
    else:
        products(torch)
        steps(torch)
except ImportError as error:
    say(missing=f"PyTorch on the same card: {error}; NEOLOG_PYTHON names a Python that has torch, transformers and peft")
