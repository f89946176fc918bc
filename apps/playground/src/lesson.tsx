import type { Opened } from "./protocol.ts";

/** The new words, and the sentences that the model will read. */
export function Lesson({ opened }: { readonly opened: Opened | null }) {
  if (!opened) return null;
  return (
    <section aria-labelledby="words">
      <h2 id="words">Three new words</h2>
      <dl class="words">
        {opened.words.map(({ word, token, animal }) => (
          <div key={word}>
            <dt>{word}</dt>
            <dd>
              stands for {animal}
              <small>token {token}</small>
            </dd>
          </div>
        ))}
      </dl>
      <p>
        Nobody tells the model what they stand for. It reads what each of them says and eats, and has to find out by
        itself where it lives, how it moves and what it looks like.
      </p>
      <details>
        <summary>All {opened.sentences.length} sentences that it reads</summary>
        <ul class="sentences">
          {opened.sentences.map((sentence) => (
            <li key={sentence}>{sentence}</li>
          ))}
        </ul>
      </details>
    </section>
  );
}
