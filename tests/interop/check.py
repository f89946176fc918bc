"""Real PEFT and Transformers over what our library wrote.

    python check.py MANIFEST.json

The manifest lists cases: {"name", "base", "merged"} or {"name", "base", "adapters": [[name, folder], ...], "active": [names], "resize"?,
"dropped"?: a bias that PEFT leaves out of the logits},
each with "inputs" (a batch) and "logits" (a safetensors file with a tensor "logits"). Prints one JSON object: versions, and for each
case the largest difference of logits at unmasked positions, every warning, and what differs when PEFT saves the adapters again.
"""

import json
import os
import sys
import tempfile
import warnings

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import peft
import torch
import transformers
from safetensors.torch import load_file

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()


def load_base(folder):
    cls = getattr(transformers, transformers.AutoConfig.from_pretrained(folder).architectures[0])
    model, info = cls.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True)
    return model.eval(), [f"{kind}: {key}" for kind, keys in info.items() for key in sorted(map(str, keys))]


def saved_differently(model, adapters):
    """What PEFT's own save_pretrained writes other than we did: tensors by their bytes, JSON by its values."""
    found = []
    with tempfile.TemporaryDirectory() as out:
        model.save_pretrained(out, save_embedding_layers=False)
        for name, folder in adapters:
            theirs = out if name == "default" else os.path.join(out, name)
            for file in ("adapter_model.safetensors", "adapter_config.json"):
                ours, again = os.path.join(folder, file), os.path.join(theirs, file)
                if file.endswith(".json"):
                    with open(ours) as a, open(again) as b:
                        a, b = json.load(a), json.load(b)
                    b["base_model_name_or_path"] = a["base_model_name_or_path"]  # PEFT fills in where the base was
                    for config in (a, b):  # a list is a set to PEFT
                        for key in ("target_modules", "exclude_modules"):
                            if isinstance(config.get(key), list):
                                config[key] = sorted(config[key])
                    if isinstance(a["target_modules"], list) and len(a["target_modules"]) >= 20:
                        b["target_modules"] = a["target_modules"]  # PEFT shortens long lists to unambiguous endings
                    found += [f"{name}/{file}: {key}" for key in {**a, **b} if a.get(key) != b.get(key)]
                else:
                    with open(ours, "rb") as a, open(again, "rb") as b:
                        found += [] if a.read() == b.read() else [f"{name}/{file}"]
    return found


def check(case):
    model, complaints = load_base(case.get("merged", case["base"]))
    dropped = model.state_dict()[case["dropped"]].clone() if "dropped" in case else 0.0
    result = {"name": case["name"], "complaints": complaints, "saved_differently": []}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if "adapters" in case:
            if case.get("resize"):
                model.resize_token_embeddings(case["resize"], mean_resizing=False)
            (name, folder), *others = case["adapters"]
            model = peft.PeftModel.from_pretrained(model, folder, adapter_name=name)
            for name, folder in others:
                model.load_adapter(folder, name)
            model.base_model.set_adapter(case["active"])
            model.eval()
        batch = {key: torch.tensor(value) for key, value in case["inputs"].items()}
        with torch.no_grad():
            try:
                logits = model(**batch).logits + dropped
            except Exception as error:
                raise RuntimeError(case["name"]) from error
        if "adapters" in case:
            result["saved_differently"] = saved_differently(model, case["adapters"])
    ours = load_file(case["logits"])["logits"]
    everywhere = torch.ones(ours.shape[:2])
    of_encoder = model.config.is_encoder_decoder  # its mask is not the logits'
    counted = (everywhere if of_encoder else batch.get("attention_mask", everywhere)) == 1
    result["warnings"] = [str(w.message) for w in caught]
    result["max_abs_diff"] = float((logits - ours).abs()[counted].max())
    result["max_abs_logit"] = float(ours.abs()[counted].max())
    return result


with open(sys.argv[1]) as f:
    cases = json.load(f)
versions = {module.__name__: module.__version__ for module in (peft, transformers, torch)}
print(json.dumps({"versions": versions, "cases": [check(case) for case in cases]}))
