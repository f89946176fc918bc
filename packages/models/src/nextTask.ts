/** Ends the current task: timers, events and painting have their turn before what awaits this goes on. */
export function nextTask(): Promise<void> {
  if (typeof setImmediate === "function") return new Promise((resolve) => setImmediate(resolve));
  // setTimeout would wait 4 ms
  return new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    const arrived = (): void => {
      port1.close();
      resolve();
    };
    port1.addEventListener("message", arrived, { once: true });
    port1.start();
    port2.postMessage(null);
  });
}
