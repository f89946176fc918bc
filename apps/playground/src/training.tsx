import { LossChart } from "./lossChart.tsx";
import type { Session } from "./session.ts";

interface Props {
  readonly session: Session;
  readonly onTrain: () => void;
  readonly onStop: () => void;
}

/** The button, the curve and the figures of the run. */
export function Training({ session, onTrain, onStop }: Props) {
  const { phase, started, steps, trained } = session;
  if (!session.opened) return null;
  const training = phase === "training";
  const can = phase === "ready" || phase === "trained";
  const last = steps.at(-1);
  return (
    <section aria-labelledby="training">
      <h2 id="training">Training</h2>
      <p class="actions">
        <button type="button" class="primary" onClick={training ? onStop : onTrain} disabled={!training && !can}>
          {training ? "Stop" : phase === "finishing" ? "Asking it…" : trained ? "Train again" : "Teach it the words"}
        </button>
        {started && (
          <span>
            {started.trainable.toLocaleString("en-US")} of {started.all.toLocaleString("en-US")} parameters are trained,
            all others frozen.
          </span>
        )}
      </p>
      {started && (
        <>
          <progress max={started.steps} value={steps.length} aria-label="steps done" />
          <LossChart losses={steps.map(({ loss }) => loss)} total={started.steps} />
          <dl class="figures">
            <Figure name="step" value={`${steps.length} of ${started.steps}`} />
            <Figure name="loss" value={last ? last.loss.toFixed(3) : "–"} />
            <Figure name="tokens a second" value={last ? count(speedOf(steps)) : "–"} />
            <Figure name="memory" value={last ? `${(last.bytes / 1e6).toFixed(1)} MB` : "–"} />
          </dl>
          <p role="status" class="quiet">
            {training && steps.length === 0 && "Preparing the first step…"}
            {trained &&
              `${trained.whole ? "Trained" : "Stopped"} after ${steps.length} steps: the loss went from ${steps[0]?.loss.toFixed(3)} to ${last?.loss.toFixed(3)}.`}
          </p>
        </>
      )}
    </section>
  );
}

const Figure = ({ name, value }: { readonly name: string; readonly value: string }) => (
  <div>
    <dt>{name}</dt>
    <dd>{value}</dd>
  </div>
);

const count = (n: number): string => Math.round(n).toLocaleString("en-US");

/** The median of the last steps: one step's is restless. */
function speedOf(steps: Session["steps"]): number {
  const speeds = steps.slice(-15).map(({ tokensPerSecond }) => tokensPerSecond);
  return speeds.toSorted((a, b) => a - b)[Math.floor(speeds.length / 2)]!;
}
