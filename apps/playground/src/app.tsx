import { useEffect, useState } from "preact/hooks";
import { BackendPicker } from "./backendPicker.tsx";
import { Download } from "./download.tsx";
import { Lesson } from "./lesson.tsx";
import { readSettings, writeSettings } from "./settings.ts";
import { OPENING, WorkerSession } from "./session.ts";
import { Training } from "./training.tsx";
import { Writing } from "./writing.tsx";

/** The page: a model, three words, their training, what changed, and the adapter to take away. */
export function App() {
  const [session, setSession] = useState(OPENING);
  const [settings, setSettings] = useState(readSettings);
  const [worker] = useState(() => new WorkerSession(setSession));
  useEffect(() => {
    writeSettings(settings);
    worker.open(settings.backend);
  }, [settings.backend]);

  return (
    <>
      <header>
        <h1>
          <b>Neolog</b> teaches a language model new words
        </h1>
        <p>
          A small transformer, loaded into this page, reads about three words that it has never seen. Only their rows of
          its table are trained, on your machine; nothing leaves the page.
        </p>
      </header>
      <main>
        <BackendPicker
          choice={settings.backend}
          opened={session.opened}
          failed={session.phase === "failed"}
          onChoose={(backend) => setSettings({ ...settings, backend })}
        />
        {session.error !== null && (
          <section class="failure" role="alert">
            <h2>This went wrong</h2>
            <p>{session.error}</p>
            <button type="button" onClick={() => worker.open(settings.backend)}>
              Start again
            </button>
          </section>
        )}
        <Lesson opened={session.opened} />
        <Training session={session} onTrain={() => worker.train(settings.steps)} onStop={() => worker.stop()} />
        <Writing before={session.opened?.before ?? null} after={session.trained?.after ?? null} />
        {session.trained && <Download files={session.trained.files} rows={session.opened!.table[0]} />}
      </main>
      <footer>
        The adapter is a folder as Python's PEFT writes it. All arithmetic, from the matrix product to the optimizer, is
        Neolog's own TypeScript.
      </footer>
    </>
  );
}
