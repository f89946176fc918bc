import { useEffect, useState } from "preact/hooks";

interface Props {
  /** The adapter's folder. */
  readonly files: ReadonlyMap<string, Uint8Array>;
  /** Of the model's table, the new words included. */
  readonly rows: number;
}

/** The adapter's files to save, and how Python reads them. */
export function Download({ files, rows }: Props) {
  const [urls, setUrls] = useState<ReadonlyMap<string, string>>(new Map());
  useEffect(() => {
    const made = new Map([...files].map(([name, bytes]) => [name, URL.createObjectURL(new Blob([bytes as BlobPart]))]));
    setUrls(made);
    return () => made.forEach((url) => URL.revokeObjectURL(url));
  }, [files]);
  return (
    <section aria-labelledby="adapter">
      <h2 id="adapter">Take it away</h2>
      <p>Put these files into a folder named “words”.</p>
      <ul class="files">
        {[...urls].map(([name, url]) => (
          <li key={name}>
            <a href={url} download={name}>
              {name}
            </a>{" "}
            <small>{sizeOf(files.get(name)!.byteLength)}</small>
          </li>
        ))}
      </ul>
      <details>
        <summary>The same adapter in Python</summary>
        <pre>
          <code>{PYTHON.replace("ROWS", String(rows))}</code>
        </pre>
      </details>
    </section>
  );
}

const sizeOf = (bytes: number): string => (bytes < 1000 ? `${bytes} bytes` : `${(bytes / 1000).toFixed(1)} kB`);

const PYTHON = `from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("words")
base = AutoModelForCausalLM.from_pretrained("packages/models/pretrained/meadow")
base.resize_token_embeddings(ROWS)
model = PeftModel.from_pretrained(base, "words")`;
