/** The bytes of ONNX models: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto */
import { product, someElements } from "./data.mjs";

export const FLOAT = 1;
export const INT64 = 7;
const varint = (n) => (n < 128 ? [n] : [(n & 127) | 128, ...varint(Math.floor(n / 128))]);
const number = (field, n) => [...varint(field * 8), ...varint(n)];
const bytes = (field, content) => [...varint(field * 8 + 2), ...varint(content.length), ...content];
const string = (field, text) => bytes(field, [...new TextEncoder().encode(text)]);

const valueInfo = (name, shape, type = FLOAT) => {
  const dimensions = shape.flatMap((d) => bytes(1, number(1, d)));
  const tensorType = [...number(1, type), ...bytes(2, dimensions)];
  return [...string(1, name), ...bytes(2, bytes(1, tensorType))];
};

/** By what a value is, a float, an integer, a text or integers. */
function attribute(name, value) {
  const named = string(1, name);
  if (Array.isArray(value)) return [...named, ...value.flatMap((n) => number(8, n)), ...number(20, 7)];
  if (typeof value === "string") return [...named, ...string(4, value), ...number(20, 3)];
  if (Number.isInteger(value)) return [...named, ...number(3, value), ...number(20, 2)];
  return [...named, 2 * 8 + 5, ...new Uint8Array(Float32Array.of(value).buffer), ...number(20, 1)];
}

export const node = (op, inputs, output, attributes = {}) => [
  ...inputs.flatMap((name) => string(1, name)),
  ...[output].flat().flatMap((name) => string(2, name)),
  ...string(4, op),
  ...Object.entries(attributes).flatMap(([name, value]) => bytes(5, attribute(name, value))),
];

const tensor = (name, shape, type) => [...shape.flatMap((d) => number(1, d)), ...number(2, type), ...string(8, name)];
/** A constant whose data the model holds. */
export const constant = (name, shape, data, type = FLOAT) => [
  ...tensor(name, shape, type),
  ...bytes(9, new Uint8Array(data.buffer, data.byteOffset, data.byteLength)),
];
/** A constant whose data is in a file beside the model's. */
export function stored(name, shape, { file, offset, length }, type = FLOAT) {
  const entry = (key, value) => bytes(13, [...string(1, key), ...string(2, String(value))]);
  const where = [...entry("location", file), ...entry("offset", offset), ...entry("length", length)];
  return [...tensor(name, shape, type), ...where, ...number(14, 1)];
}

/** `inputs` and `outputs`: [name, shape, type] */
export function model({ nodes, constants = [], inputs, outputs }) {
  const graph = [
    ...nodes.flatMap((each) => bytes(1, each)),
    ...string(2, "graph"),
    ...constants.flatMap((each) => bytes(5, each)),
    ...inputs.flatMap((each) => bytes(11, valueInfo(...each))),
    ...outputs.flatMap((each) => bytes(12, valueInfo(...each))),
  ];
  return Uint8Array.from([...number(1, 9), ...bytes(7, graph), ...bytes(8, number(2, 20))]);
}

/** y = x · w, or x · wᵀ by a Gemm with transB, over two inputs. */
function productModel({ transposed, xShape, wShape }) {
  const op = transposed ? node("Gemm", ["x", "w"], "y", { transB: 1 }) : node("MatMul", ["x", "w"], "y");
  const y = [xShape[0], transposed ? wShape[0] : wShape[1]];
  const inputs = [
    ["x", xShape],
    ["w", wShape],
  ];
  return model({ nodes: [op], inputs, outputs: [["y", y]] });
}

/** Prepares products on an ONNX runtime. */
export const onnxProducts = (ort, sessionOptions) => async (c) => {
  const p = product(c);
  if (!p) return null;
  const session = await ort.InferenceSession.create(productModel(p), sessionOptions);
  const feeds = { x: new ort.Tensor("float32", p.x, p.xShape), w: new ort.Tensor("float32", p.w, p.wShape) };
  return {
    run: () => session.run(feeds),
    check: async () => someElements((await session.run(feeds)).y.data),
    release: () => session.release(),
  };
};
