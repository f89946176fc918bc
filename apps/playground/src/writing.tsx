import type { Writing as Text } from "./protocol.ts";

/** What the model says before and after training, side by side. */
export function Writing({ before, after }: { readonly before: Text | null; readonly after: Text | null }) {
  if (!before) return null;
  return (
    <section aria-labelledby="says">
      <h2 id="says">What it says</h2>
      <div class="sides">
        <Side title="Before" text={before} />
        {after ? (
          <Side title="After" text={after} />
        ) : (
          <p class="quiet side">What it says afterwards will stand here.</p>
        )}
      </div>
    </section>
  );
}

function Side({ title, text }: { readonly title: string; readonly text: Text }) {
  const right = text.answers.filter((answer) => answer.right).length;
  return (
    <div class="side" id={title.toLowerCase()}>
      <h3>{title}</h3>
      {text.texts.map((story) => (
        <blockquote key={story}>{story}</blockquote>
      ))}
      <p>
        <b>
          {right} of {text.answers.length}
        </b>{" "}
        questions right that no sentence answers
      </p>
      <details>
        <summary>Every question</summary>
        <ul class="answers">
          {text.answers.map(({ prompt, given, right }) => (
            <li key={prompt}>
              {prompt} <b>{given}</b> <span class={right ? "right" : "wrong"}>{right ? "right" : "wrong"}</span>
            </li>
          ))}
        </ul>
      </details>
    </div>
  );
}
