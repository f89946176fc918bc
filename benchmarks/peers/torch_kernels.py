"""torch as a contender: python torch_kernels.py THREADS"""

import sys

from serve import say_missing, serve

try:
    import numpy as np
    import torch
    import torch.nn.functional as F
except ImportError as error:
    say_missing(f"{error}; NEOLOG_PYTHON names a Python that has torch")

torch.set_num_threads(int(sys.argv[1]) if len(sys.argv) > 1 else 1)


def values(shape, seed):
    """Real values on [-0.5, 0.5), those of Neolog's `rand(shape, seed) - 0.5`."""
    h = np.arange(np.prod(shape), dtype=np.uint32) * np.uint32(0x9E3779B9)
    h ^= np.uint32(seed * 0x85EBCA6B & 0xFFFFFFFF)
    for _ in range(2):
        h = (h ^ (h >> np.uint32(16))) * np.uint32(0x85EBCA6B)
        h = (h ^ (h >> np.uint32(13))) * np.uint32(0xC2B2AE35)
        h = (h ^ (h >> np.uint32(16))) + np.uint32(0x6D2B79F5)
    return torch.from_numpy(((h >> np.uint32(8)) / 2**24 - 0.5).astype(np.float32).reshape(shape))


def targets(n, classes):
    return torch.arange(n) * 7919 % classes


UNARY = {
    "exp": torch.exp,
    "tanh": torch.tanh,
    "gelu": F.gelu,
    "geluTanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
    "softmax": lambda x: torch.softmax(x, -1),
    "logSoftmax": lambda x: torch.log_softmax(x, -1),
    "logSumExp": lambda x: torch.logsumexp(x, -1),
    "sumRows": lambda x: x.sum(1),
    "sumColumns": lambda x: x.sum(0),
    "maxRows": lambda x: x.amax(1),
    "argmaxRows": lambda x: x.argmax(1),
    "transpose": lambda x: x.t().contiguous(),
    "crossEntropy": lambda x: F.cross_entropy(x, targets(*x.shape)),
}
BINARY = {"add": torch.add, "mul": torch.mul, "swiglu": lambda gate, up: F.silu(gate) * up}


def causal(q, k, v):
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def function_of(case):
    """A function without arguments that gives a tensor, or None."""
    kernel, shape = case["kernel"], case["shape"]
    if "dtype" in case:
        return None
    if kernel in ("matmul", "matmulT"):
        m, k, n = shape
        x = values([m, k], 1)
        w = values([n, k], 2).t() if kernel == "matmulT" else values([k, n], 2)
        return lambda: x @ w
    if kernel in ("layerNorm", "rmsNorm"):
        x, weight, bias = values(shape, 1), values(shape[-1:], 2), values(shape[-1:], 3)
        if kernel == "rmsNorm":
            return lambda: F.rms_norm(x, x.shape[-1:], weight, 1e-5)
        return lambda: F.layer_norm(x, x.shape[-1:], weight, bias, 1e-5)
    if kernel in UNARY:
        x = values(shape, 1)
        return lambda: UNARY[kernel](x)
    if kernel in BINARY:
        x, y = values(shape, 1), values(shape, 2)
        return lambda: BINARY[kernel](x, y)
    if kernel == "attention":
        q, k, v = (values(shape, seed) for seed in (1, 2, 3))
        return lambda: causal(q, k, v)
    if kernel == "attentionBackward":
        q, k, v = (values(shape, seed).requires_grad_() for seed in (1, 2, 3))
        g = values(shape, 4)
        return lambda: torch.autograd.grad(causal(q, k, v), (q, k, v), g)[0]
    return None


def prepare(case):
    f = function_of(case)
    if f is None:
        return None

    def run():
        with torch.set_grad_enabled(case["kernel"].endswith("Backward")):
            return f()

    def check():
        y = run().detach().float().flatten()
        return [y[i].item() for i in (0, len(y) // 2, -1)]

    return run, check


serve("torch", prepare)
