"""What transformers' AutoTokenizer makes of tokenizer folders that our library wrote.

    python check_tokenizers.py MANIFEST.json

The manifest lists folders: {"folder", "lines": [{"text", "ids", "plain_ids", "decoded"}]}. Prints one JSON list of what differs.
"""

import json
import os
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import transformers

transformers.logging.set_verbosity_error()

differences = []
with open(sys.argv[1]) as file:
    for case in json.load(file):
        tokenizer = transformers.AutoTokenizer.from_pretrained(case["folder"])
        for line in case["lines"]:
            ids = tokenizer(line["text"])["input_ids"]
            theirs = {
                "ids": ids,
                "plain_ids": tokenizer(line["text"], add_special_tokens=False)["input_ids"],
                "decoded": tokenizer.decode(ids, skip_special_tokens=True),
            }
            differences += [
                {"folder": case["folder"], "text": line["text"], "what": key, "ours": line[key], "theirs": value}
                for key, value in theirs.items()
                if line[key] != value
            ]
print(json.dumps(differences))
