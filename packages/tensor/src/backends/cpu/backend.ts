import { ReferenceBackend } from "../reference/backend.ts";

export class CpuBackend extends ReferenceBackend {}
