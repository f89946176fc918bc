import type { GpuJs } from "../facade.ts";
import type { Opened } from "../webgpu/open.ts";
import { WebGl2Executor } from "./executor.ts";

/** A WebGL2 context that can render to float textures, and what it runs on. */
export interface WebGl2 {
  readonly gl: WebGL2RenderingContext;
  readonly canvas: OffscreenCanvas;
  /** The driver's name for its device. */
  readonly adapter: string;
  readonly software: boolean;
  readonly maxTextureSize: number;
}

const SOFTWARE = /swiftshader|llvmpipe|softpipe|software|basic render/i;

/** Opens WebGL2 on a context of its own; `refused` are the modes that would have been better, and why they are not there. */
export function openWebGl2(
  lib: GpuJs,
  { allowSoftware = false }: { readonly allowSoftware?: boolean },
  refused: Readonly<Record<string, string>> = {},
): Opened<WebGl2Executor> {
  const context = openContext();
  if (typeof context === "string") return { refused: context };
  if (context.software && !allowSoftware)
    return { refused: `${context.adapter} computes in software; pass allowSoftware: true to take it anyway` };
  return { executor: new WebGl2Executor(lib, context, refused) };
}

/** A context, or why there is none. */
function openContext(): WebGl2 | string {
  if (typeof OffscreenCanvas === "undefined") return "needs a browser's OffscreenCanvas";
  const canvas = new OffscreenCanvas(1, 1);
  const gl = canvas.getContext("webgl2", { alpha: false, depth: false, antialias: false });
  if (!gl) return "this browser gives no WebGL2 context";
  if (!gl.getExtension("EXT_color_buffer_float"))
    return "float textures cannot be rendered to (EXT_color_buffer_float)";
  const named = gl.getExtension("WEBGL_debug_renderer_info");
  const adapter = String(gl.getParameter(named ? named.UNMASKED_RENDERER_WEBGL : gl.RENDERER));
  gl.disable(gl.BLEND);
  gl.disable(gl.DITHER);
  const maxTextureSize = Number(gl.getParameter(gl.MAX_TEXTURE_SIZE));
  return { gl, canvas, adapter, software: SOFTWARE.test(adapter), maxTextureSize };
}
