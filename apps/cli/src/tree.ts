import type { StoredDType, TensorInfo } from "@neolog/checkpoint";
import { formatShape } from "@neolog/tensor";
import { thousands } from "./text.ts";

/** A part of a model: its own tensors by their last name, and the parts below it. */
export interface TreeNode {
  readonly name: string;
  /** Class of the module, where that is known. */
  readonly kind: string | null;
  /** How many parts in a row are built alike; this one stands for all of them. */
  readonly count: number;
  readonly tensors: readonly TreeTensor[];
  readonly children: readonly TreeNode[];
  /** Of one of the parts. */
  readonly parameters: number;
}
export interface TreeTensor {
  readonly name: string;
  readonly dtype: StoredDType;
  readonly shape: readonly number[];
}

/** The tensors of a checkpoint as a tree, by the dots of their names; parts that are built alike are folded into one. */
export function treeOf(infos: Iterable<TensorInfo>, kindOf: (path: string) => string | null): TreeNode {
  const root = new Branch();
  for (const { name, dtype, shape } of infos) {
    const path = name.split(".");
    let branch = root;
    for (const part of path.slice(0, -1)) branch = branch.child(part);
    branch.tensors.push({ name: path.at(-1)!, dtype, shape });
  }
  return build(root, "", "", kindOf);
}

class Branch {
  readonly tensors: TreeTensor[] = [];
  readonly children = new Map<string, Branch>();

  child(name: string): Branch {
    const known = this.children.get(name);
    if (known) return known;
    const made = new Branch();
    this.children.set(name, made);
    return made;
  }
}

function build(branch: Branch, path: string, name: string, kindOf: (path: string) => string | null): TreeNode {
  const children = [...branch.children].map(([key, child]) => build(child, path ? `${path}.${key}` : key, key, kindOf));
  const own = branch.tensors.reduce((sum, { shape }) => sum + sizeOf(shape), 0);
  return joined({
    name,
    kind: kindOf(path),
    count: 1,
    tensors: branch.tensors,
    children: fold(children.toSorted(byNumber)),
    parameters: children.reduce((sum, { parameters, count }) => sum + parameters * count, own),
  });
}

/** What is no module and holds one part, or one kind of part, is drawn on the line of that part: `layers.0…15`. */
function joined(node: TreeNode): TreeNode {
  const [only, ...others] = node.children;
  if (!only || others.length > 0 || node.tensors.length > 0 || node.kind !== null || /^\d*$/.test(node.name))
    return node;
  return { ...only, name: `${node.name}.${only.name}` };
}

/** Numbered parts in their order, all others as they come. */
const byNumber = (a: TreeNode, b: TreeNode): number =>
  isNumber(a.name) && isNumber(b.name) ? Number(a.name) - Number(b.name) : 0;
const isNumber = (name: string): boolean => /^\d+$/.test(name);
const sizeOf = (shape: readonly number[]): number => shape.reduce((product, d) => product * d, 1);

/** Numbered neighbours that are alike become one, named `0…15`. */
function fold(nodes: readonly TreeNode[]): TreeNode[] {
  const folded: TreeNode[] = [];
  let like = "";
  for (const node of nodes) {
    const last = folded.at(-1);
    const own = isNumber(node.name) ? signature(node) : "";
    if (last && own !== "" && own === like) {
      const first = last.name.split("…")[0]!;
      folded[folded.length - 1] = { ...last, name: `${first}…${node.name}`, count: last.count + 1 };
    } else folded.push(node);
    like = own;
  }
  return folded;
}

/** What two parts must share to be drawn as one. */
const signature = ({ kind, tensors, children }: TreeNode): string =>
  JSON.stringify([kind, tensors, children.map((child) => [child.name, child.count, signature(child)])]);

interface Line {
  readonly name: string;
  readonly kind: string;
  readonly shape: string;
  readonly dtype: string;
  readonly parameters: string;
}

/**
 * The tree as lines of at most `width` columns: branches, class, shape (a bias behind a plus), dtype, parameters. Classes go first
 * where there is no room for all.
 */
export function drawTree(root: TreeNode, rootName: string, width: number): string[] {
  const lines = [lineOf({ ...root, name: rootName }, ""), ...below(root, "")];
  const widest = (key: keyof Line): number => Math.max(...lines.map((line) => line[key].length));
  const fixed = widest("name") + widest("shape") + widest("dtype") + widest("parameters") + 6;
  const room = width - fixed - 2;
  const kinds = room >= Math.min(8, widest("kind")) ? Math.min(room, widest("kind")) : 0;
  return lines.map(({ name, kind, shape, dtype, parameters }) =>
    [
      name.padEnd(widest("name")),
      ...(kinds > 0 ? [clipEnd(kind, kinds).padEnd(kinds)] : []),
      shape.padEnd(widest("shape")),
      dtype.padEnd(widest("dtype")),
      parameters.padStart(widest("parameters")),
    ]
      .join("  ")
      .trimEnd(),
  );
}

const clipEnd = (text: string, width: number): string => (text.length <= width ? text : `${text.slice(0, width - 1)}…`);

function below(node: TreeNode, prefix: string): Line[] {
  const parts = [...(isPlain(node) ? [] : node.tensors.map(leaf)), ...node.children];
  return parts.flatMap((part, i) => {
    const last = i === parts.length - 1;
    const [branch, rest] = last ? ["└─ ", "   "] : ["├─ ", "│  "];
    return [lineOf(part, prefix + branch), ...below(part, prefix + rest)];
  });
}

/** A weight and its bias, or one tensor called weight: drawn on the line of their module. */
const isPlain = ({ tensors }: TreeNode): boolean =>
  tensors.every(({ name }) => name === "weight" || name === "bias") && tensors.some(({ name }) => name === "weight");

const leaf = (tensor: TreeTensor): TreeNode => ({
  name: tensor.name,
  kind: null,
  count: 1,
  tensors: [{ ...tensor, name: "weight" }],
  children: [],
  parameters: sizeOf(tensor.shape),
});

function lineOf(node: TreeNode, prefix: string): Line {
  const { name, kind, count, tensors, parameters } = node;
  const plain = isPlain(node) ? tensors.toSorted((a, b) => (a.name < b.name ? 1 : -1)) : [];
  return {
    name: `${prefix}${name}`,
    kind: kind ?? "",
    shape: plain.map(({ shape }) => formatShape(shape)).join(" + "),
    dtype: [...new Set(plain.map(({ dtype }) => dtype))].join("/"),
    parameters: `${count > 1 ? `${count} × ` : ""}${thousands(parameters)}`,
  };
}
