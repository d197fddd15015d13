// SPDX-License-Identifier: Apache-2.0
/**
 * Whether the kernel can do ESP: an xfrm interface and SAs are made as they will be, and taken away at
 * once. The kernel loads the modules that this takes, if it can; what it cannot is named.
 */
import { randomInt } from "node:crypto";
import { type Suite, leastSpi, suites } from "../keys/esp-keys.js";
import type { Native, XfrmState } from "../native/contract.js";
import { errnoName } from "./errno.js";
import { hasIpv6 } from "./esp-device.js";
import { algorithmsOf, noDevice, ourIfIds } from "./esp-form.js";
import { modulesMissing } from "./esp-modules.js";
import { espAlias } from "./names.js";

/** ours, so that removeAll() would clear up behind a daemon that is killed within */
const ifId = ourIfIds.value + noDevice;
const linkName = "vn-esp-probe";
/** nobody's: RFC 5737, RFC 3849 */
const ends = {
  4: { source: "192.0.2.1", destination: "192.0.2.2" },
  6: { source: "2001:db8::1", destination: "2001:db8::2" },
} as const;

export class EspProbe {
  private readonly proven = new Set<Suite>();

  constructor(private readonly native: Native) {}

  /** What it cannot do is tried again each time: somebody may have loaded the module meanwhile. */
  problem(suite?: Suite): string | undefined {
    const wanted = (suite === undefined ? suites : [suite]).filter(
      (each) => !this.proven.has(each),
    );
    if (wanted.length === 0) return undefined;
    const families = hasIpv6() ? ([4, 6] as const) : ([4] as const);
    const trials = [
      () => this.tryLink(),
      ...families.flatMap((family) => wanted.map((each) => () => this.tryState(each, family))),
    ];
    const problems = new Set(trials.flatMap((trial) => problemOf(trial) ?? []));
    if (problems.size > 0) return describe([...problems], wanted);
    for (const each of wanted) this.proven.add(each);
    return undefined;
  }

  private tryLink(): void {
    const remove = (): void => {
      const link = this.native.linkGet(linkName);
      if (link?.alias === espAlias) this.native.linkDelete(link.ifindex);
    };
    remove();
    this.native.linkAddXfrm({ name: linkName, ifId, alias: espAlias });
    remove();
  }

  private tryState(suite: Suite, family: 4 | 6): void {
    const { cipherBytes, saltBytes, authBytes } = suite;
    const [cipher, salt, auth] = [cipherBytes, saltBytes, authBytes].map((bytes) =>
      Buffer.alloc(bytes),
    ) as [Buffer, Buffer, Buffer];
    const spi = randomInt(leastSpi, 2 ** 32);
    const state: XfrmState = {
      ...{ ...ends[family], spi, ifId, reqid: 0, mode: "beet", esn: true, replayWindow: 32 },
      ...algorithmsOf(suite, { cipher, salt, auth }),
      limits: { hardSeconds: 1 },
    };
    this.native.xfrmStateAdd(state);
    this.native.xfrmStateDelete(state);
  }
}

const lacks = "the kernel lacks ";

function problemOf(trial: () => void): string | undefined {
  try {
    trial();
    return undefined;
  } catch (error) {
    if (errnoName(error) === "") throw error;
    const { message } = error as Error;
    const at = message.indexOf(lacks);
    return at < 0 ? message : message.slice(at + lacks.length);
  }
}

/**
 * The addon names options with their modules: "CONFIG_INET_ESP (module esp4)". Behind those more may be missing, which would be said
 * when these are there: all of them are named at once.
 */
function describe(problems: readonly string[], wanted: readonly Suite[]): string {
  const named = problems.flatMap((problem) =>
    [...problem.matchAll(/\(modules? ([\w, -]+)\)/g)].flatMap(
      (match) => match[1]?.split(", ") ?? [],
    ),
  );
  const text = `this kernel cannot do ESP as it should: it lacks ${problems.join("; ")}`;
  if (named.length === 0) return text;
  const modules = modulesMissing({ suites: wanted, ipv6: hasIpv6(), named });
  return modules.length === 0
    ? text
    : `${text}. What is a module: modprobe -a ${modules.join(" ")}`;
}
