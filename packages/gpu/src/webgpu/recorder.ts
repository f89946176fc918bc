/** UNIFORM | COPY_DST */
const USAGE = 0x0040 | 0x0008;
/** What a uniform binding's offset must be a multiple of, at worst. */
const ALIGNMENT = 256;
const RING = 2 ** 20;

/** One dispatch: its numbers are written by `fill` into the parameters of this call. */
export interface Dispatch {
  readonly pipeline: GPUComputePipeline;
  readonly layout: GPUBindGroupLayout;
  readonly buffers: readonly GPUBuffer[];
  readonly groups: readonly [number, number, number];
  /** Bytes of parameters. */
  readonly length: number;
  readonly fill: (params: DataView) => void;
}

/** Collects dispatches and submits them together: once a step, or when there are many. */
export class Recorder {
  readonly #device: GPUDevice;
  readonly #ring: GPUBuffer;
  readonly #mirror = new ArrayBuffer(RING);
  readonly #most: number;
  #encoder: GPUCommandEncoder | null = null;
  #pass: GPUComputePassEncoder | null = null;
  #offset = 0;
  #pending = 0;
  /** Counts submits. What was used in this one is not submitted yet. */
  epoch = 0;
  /** Counts dispatches. */
  dispatches = 0;

  constructor(device: GPUDevice, most: number) {
    this.#device = device;
    this.#most = most;
    this.#ring = device.createBuffer({ size: RING, usage: USAGE });
  }

  /** Records one dispatch; none of no workgroups, of which drivers warn. */
  record({ pipeline, layout, buffers, groups, length, fill }: Dispatch): void {
    if (groups.includes(0)) return;
    if (this.#offset + length > RING) this.submit();
    this.#encoder ??= this.#device.createCommandEncoder();
    this.#pass ??= this.#encoder.beginComputePass();
    fill(new DataView(this.#mirror, this.#offset, length));
    const entries = [
      { binding: 0, resource: { buffer: this.#ring, offset: this.#offset, size: length } },
      ...buffers.map((buffer, i) => ({ binding: 1 + i, resource: { buffer } })),
    ];
    this.#pass.setPipeline(pipeline);
    this.#pass.setBindGroup(0, this.#device.createBindGroup({ layout, entries }));
    this.#pass.dispatchWorkgroups(...groups);
    this.#offset += Math.ceil(length / ALIGNMENT) * ALIGNMENT;
    this.dispatches++;
    if (++this.#pending >= this.#most) this.submit();
  }

  /** Records a copy out of a buffer. */
  copy(from: GPUBuffer, at: number, to: GPUBuffer, toAt: number, bytes: number): void {
    this.#encoder ??= this.#device.createCommandEncoder();
    this.#pass?.end();
    this.#pass = null;
    this.#encoder.copyBufferToBuffer(from, at, to, toAt, bytes);
  }

  submit(): void {
    if (!this.#encoder) return;
    this.#pass?.end();
    if (this.#offset > 0) this.#device.queue.writeBuffer(this.#ring, 0, this.#mirror, 0, this.#offset);
    this.#device.queue.submit([this.#encoder.finish()]);
    this.#encoder = null;
    this.#pass = null;
    this.#offset = 0;
    this.#pending = 0;
    this.epoch++;
  }
}
