import { nextTurn } from "../nextTurn.ts";
import { DeviceLostError } from "../errors.ts";
import { FORMATS, hostView } from "./formats.ts";
import type { Texture } from "./textures.ts";

/** Turns in which the device may answer at once; those who ask on and on keep a processor from a driver that computes in software. */
const EAGER = 4;
const rest = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 1));

/** `length` numbers from number `at` on, halves as bits; waits for the device without stopping the thread. Throws BackendError where the context is lost. */
export async function readTexture(
  gl: WebGL2RenderingContext,
  { framebuffer, width, format }: Texture,
  at: number,
  length: number,
): Promise<Float32Array | Uint16Array> {
  if (length === 0) return hostView(format, new ArrayBuffer(0));
  const kind = FORMATS[format];
  const along = kind.perTexel * width;
  const first = Math.floor(at / along);
  const rows = Math.floor((at + length - 1) / along) - first + 1;
  const values = hostView(format, new ArrayBuffer(16 * width * rows));
  const packed = gl.createBuffer();
  gl.bindFramebuffer(gl.FRAMEBUFFER, framebuffer);
  gl.bindBuffer(gl.PIXEL_PACK_BUFFER, packed);
  gl.bufferData(gl.PIXEL_PACK_BUFFER, values.byteLength, gl.STREAM_READ);
  gl.readPixels(0, first, width, rows, gl[kind.format], gl[kind.type], 0);
  gl.bindBuffer(gl.PIXEL_PACK_BUFFER, null);
  const fence = gl.fenceSync(gl.SYNC_GPU_COMMANDS_COMPLETE, 0);
  gl.flush();
  let turns = 0;
  try {
    while (!gl.isContextLost()) {
      const status = gl.clientWaitSync(fence!, 0, 0);
      if (status === gl.ALREADY_SIGNALED || status === gl.CONDITION_SATISFIED) {
        gl.bindBuffer(gl.PIXEL_PACK_BUFFER, packed);
        gl.getBufferSubData(gl.PIXEL_PACK_BUFFER, 0, values);
        gl.bindBuffer(gl.PIXEL_PACK_BUFFER, null);
        if (gl.isContextLost()) break;
        const from = at - along * first;
        return values.slice(from, from + length);
      }
      await (turns++ < EAGER ? nextTurn() : rest());
    }
    throw new DeviceLostError("WebGL context lost");
  } finally {
    gl.deleteSync(fence);
    gl.deleteBuffer(packed);
  }
}
