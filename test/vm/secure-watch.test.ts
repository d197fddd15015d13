// SPDX-License-Identifier: Apache-2.0
/** Watching secure vnets: keys that are agreed on are told of, and frames are captured decrypted. */
import { randomBytes } from "node:crypto";
import { afterAll, beforeAll, expect, it } from "vitest";
import { ApiClient } from "../../src/api/client.js";
import type {
  CapturedFrame,
  MonitorEvent,
  StreamEvent,
  StreamMethod,
  StreamParams,
} from "../../src/api/contract.js";
import { Lab, eventually, type Host } from "../lib/lab.js";
import { longId } from "../netns/world.js";
import { ask, quickHosts, quickVnet, reaches } from "./secure.js";

const known = "nobodyread";
let lab: Lab;
let a: Host;
let b: Host;

beforeAll(async () => {
  lab = await Lab.create();
  [a, b] = (await quickHosts(lab, ["a", "b"], { secret: randomBytes(32) })) as [Host, Host];
});
afterAll(() => lab.close());

async function follow<M extends StreamMethod>(
  { runDir }: Host,
  method: M,
  params: StreamParams<M>,
): Promise<{ events: StreamEvent<M>[]; close: () => Promise<void> }> {
  const client = await ApiClient.connect({ runDir, answerTimeoutMs: 120_000 });
  const events: StreamEvent<M>[] = [];
  const ended = client.stream(method, params, {
    event: (event) => events.push(event) > 0,
    lost: () => true,
  });
  const close = async (): Promise<void> => {
    client.close();
    await ended;
  };
  return { events, close };
}

it("keys that are new are told of", async () => {
  const { events, close } = await follow(b, "monitor", {});
  const keys = (): MonitorEvent[] => events.filter(({ kind }) => kind === "keys");
  await quickVnet([a, b], "98");
  await reaches(a, "10.98.0.2");
  await eventually(() => keys().length > 0, { timeoutMs: 30_000, what: "word of keys" });
  expect(keys()[0]).toMatchObject({ vnet: longId("98") });
  expect(keys()[0]!.text).toMatch(/^new keys with .+ \(10\.66\.1\.1\)$/u);
  const before = keys().length;
  await ask(a, "rekey", { vnet: "98" });
  await eventually(() => keys().length > before, { timeoutMs: 60_000, what: "word of a rekey" });
  await close();
});

it("frames are captured decrypted, both ways", async () => {
  const { events, close } = await follow(b, "capture", { vnet: "98" });
  const pings = (): CapturedFrame[] =>
    events.filter(({ data }) => Buffer.from(data, "base64").includes(known));
  const pattern = Buffer.from(known).toString("hex");
  await eventually(
    async () => {
      await a.tryExec(`ping -n -c 1 -W 10 -p ${pattern} 10.98.0.2`);
      return pings().length >= 4;
    },
    { timeoutMs: 60_000, what: "pings in the capture" },
  );
  const ways = pings().map(({ direction }) => direction);
  expect(ways.slice(0, 4)).toEqual(["decap", "encap", "decap", "encap"]);
  expect(pings()[0]!.bytes).toBe(98);
  await close();
});
