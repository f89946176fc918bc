import { corpus } from "@neolog/stories";
import { trainBuiltIn } from "./train.ts";

const [command, argument] = process.argv.slice(2);
if (command === "corpus") {
  console.log(corpus({ seed: 1, count: Number(argument ?? 100) }).join("\n"));
} else if (command === "train" && argument) {
  await trainBuiltIn(argument, process.argv[4] ? Number(process.argv[4]) : undefined);
} else {
  console.error("usage: pretrain corpus [COUNT] | pretrain train FOLDER [STEPS]");
  process.exit(2);
}
