/** The bytes of an ONNX model of one node, enough for a product: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto */
import { product, someElements } from "./data.mjs";

const FLOAT = 1;
const varint = (n) => (n < 128 ? [n] : [(n & 127) | 128, ...varint(Math.floor(n / 128))]);
const number = (field, n) => [...varint(field * 8), ...varint(n)];
const bytes = (field, content) => [...varint(field * 8 + 2), ...varint(content.length), ...content];
const string = (field, text) => bytes(field, [...new TextEncoder().encode(text)]);

const valueInfo = (name, shape) => {
  const dimensions = shape.flatMap((d) => bytes(1, number(1, d)));
  const tensorType = [...number(1, FLOAT), ...bytes(2, dimensions)];
  return [...string(1, name), ...bytes(2, bytes(1, tensorType))];
};

/** y = x · w, or x · wᵀ by a Gemm with transB, over two inputs. */
function productModel({ transposed, xShape, wShape }) {
  const transB = [...string(1, "transB"), ...number(3, 1), ...number(20, 2)];
  const node = [
    ...string(1, "x"),
    ...string(1, "w"),
    ...string(2, "y"),
    ...string(4, transposed ? "Gemm" : "MatMul"),
    ...(transposed ? bytes(5, transB) : []),
  ];
  const yShape = [xShape[0], transposed ? wShape[0] : wShape[1]];
  const graph = [
    ...bytes(1, node),
    ...string(2, "product"),
    ...bytes(11, valueInfo("x", xShape)),
    ...bytes(11, valueInfo("w", wShape)),
    ...bytes(12, valueInfo("y", yShape)),
  ];
  return Uint8Array.from([...number(1, 8), ...bytes(7, graph), ...bytes(8, number(2, 13))]);
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
