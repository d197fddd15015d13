// SPDX-License-Identifier: Apache-2.0
/**
 * A secure vnet over two subnets: hellos go by peers, keys and frames straight from host to host; and a peer that
 * is none any more leaves nothing behind.
 */
import { afterAll, beforeAll, it } from "vitest";
import { Lab, eventually, type Host } from "../lib/lab.js";
import { attachedDaemon, routedHost, routedSubnets, underlayAddress } from "../netns/world.js";
import { copyKey, defaultKeyOf, quick, reaches, secureVnet } from "./secure.js";

let lab: Lab;
let a: Host;
let b: Host;
let c: Host;

beforeAll(async () => {
  lab = await Lab.create();
  await routedSubnets(lab, 2);
  a = await routedHost(lab, "a", { subnet: 1, number: 1 });
  b = await routedHost(lab, "b", { subnet: 2, number: 1 });
  c = await routedHost(lab, "c", { subnet: 1, number: 3 });
  for (const host of [a, b, c]) await attachedDaemon(host, { config: quick });
  await a.vnetd(["key-gen", "--state-dir", a.stateDir]);
  for (const host of [b, c]) copyKey(defaultKeyOf(a), defaultKeyOf(host));
  await a.vnetd(["peer-add", underlayAddress(4, 2, 1)]);
  await b.vnetd(["peer-add", underlayAddress(4, 1, 1)]);
  await secureVnet([a, b, c]);
});
afterAll(() => lab.close());

it("hosts of both subnets reach one another by ESP", async () => {
  await reaches(a, "10.98.0.2");
  await reaches(c, "10.98.0.2");
  await reaches(b, "10.98.0.3");
  const capture = await b.capture("eth0", `esp and src host ${underlayAddress(4, 1, 3)}`);
  await c.ping("10.98.0.2", { count: 3, intervalMs: 50 });
  await eventually(() => capture.packets.length >= 3);
  await capture.stop();
});

it("a peer that is deleted leaves no SA", async () => {
  const other = underlayAddress(4, 2, 1);
  await eventually(async () => (await stateOf(a)).includes(`dst ${other}`), { timeoutMs: 60_000 });
  await b.vnetd(["peer-delete", underlayAddress(4, 1, 1)]);
  await a.vnetd(["peer-delete", other]);
  // both ways; c is a neighbour, with whom keys are changed meanwhile, so its SAs are not counted
  await eventually(async () => !(await stateOf(a)).includes(other), {
    timeoutMs: 120_000,
    what: "the SAs with the peer to go",
  });
  await reaches(a, "10.98.0.3");
});

async function stateOf(host: Host): Promise<string> {
  return (await host.exec("ip xfrm state")).stdout;
}
