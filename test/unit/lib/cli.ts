// SPDX-License-Identifier: Apache-2.0
/** Runs the command line inside the test's process, and keeps what it wrote. */
import { PassThrough, Readable } from "node:stream";
import { main, type Process } from "../../../cli/main.js";

export interface CliResult {
  code: number;
  stdout: string;
  stderr: string;
}

export interface CliOptions extends Partial<
  Pick<Process, "program" | "binary" | "variables" | "systemd">
> {
  stdin?: string;
  terminal?: boolean;
}

export async function cli(args: readonly string[], options: CliOptions = {}): Promise<CliResult> {
  const [stdout, stderr] = [new PassThrough(), new PassThrough()];
  const written = { stdout: "", stderr: "" };
  stdout.on("data", (chunk: Buffer) => (written.stdout += chunk.toString("utf8")));
  stderr.on("data", (chunk: Buffer) => (written.stderr += chunk.toString("utf8")));
  const code = await main({
    program: options.program ?? "vnetd",
    binary: options.binary ?? "/nonexistent",
    variables: options.variables ?? {},
    stdin: Readable.from([Buffer.from(options.stdin ?? "")]),
    ...(options.systemd === undefined ? {} : { systemd: options.systemd }),
    args,
    streams: { stdout: Object.assign(stdout, { isTTY: options.terminal === true }), stderr },
  });
  await new Promise((done) => setImmediate(done));
  return { code, ...written };
}
