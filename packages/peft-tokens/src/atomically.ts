/** Runs a change that says, before each of its steps, how to undo it; where it throws, all is undone, the last step first. */
export function atomically<T>(change: (undo: (step: () => void) => void) => T): T {
  const steps: (() => void)[] = [];
  try {
    return change((step) => steps.push(step));
  } catch (error) {
    for (const step of steps.toReversed()) step();
    throw error;
  }
}
