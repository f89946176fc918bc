import { BackendError } from "@neolog/tensor";

/** The device is gone: what lay on it is lost, what the host holds is intact. Open a new backend and write it there. */
export class DeviceLostError extends BackendError {
  readonly code = "device-lost";
  /** What the driver says. */
  readonly reason: string;

  constructor(reason: string) {
    super(
      `gpu: the device must be there, got a lost one (${reason}); open a new backend, load the model again and write what the host holds`,
    );
    this.reason = reason;
  }
}

/** The driver refused a kernel or a buffer. */
export class DeviceError extends BackendError {
  readonly code = "device-error";
  readonly reason: string;

  constructor(reason: string) {
    super(`gpu: the driver must accept every call, got: ${reason}`);
    this.reason = reason;
  }
}

/** No mode can run here; `refused` says why, mode by mode. */
export class NoGpuError extends BackendError {
  readonly code = "no-gpu";
  readonly refused: Readonly<Record<string, string>>;

  constructor(refused: Readonly<Record<string, string>>) {
    const reasons = Object.entries(refused).map(([mode, reason]) => `${mode}: ${reason}`);
    super(`gpu: a GPU must be there, got none (${reasons.join("; ")}); use the wasm backend`);
    this.refused = refused;
  }
}
