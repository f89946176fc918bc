import { openBackend } from "../backends/open.ts";
import { conformance } from "./conformance.ts";

conformance("reference", () => openBackend("reference"));
conformance("cpu", () => openBackend("cpu"));
