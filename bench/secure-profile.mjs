// SPDX-License-Identifier: Apache-2.0
/**
 * Where the time of a small packet goes on each of the secure ways: the machine is sampled (`perf record -e cpu-clock`, with
 * the functions that called) while datagrams of 64 bytes are sent as fast as it goes, and a sample counts for what the innermost
 * function is part of whose name tells. How fast each way is was measured right before, without perf. The daemons are
 * stopped meanwhile: the data plane needs none. With a clock that counts instructions and one CPU, samples are
 * instructions. Run by bench/run-secure --profile.
 */
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { cpus } from "node:os";
import { join } from "node:path";
import { turned, udp } from "./measure.mjs";
import { absolute, cpuModel, kernel, median, ratios, ratioText } from "./report.mjs";
import { cipherFacts, ciphers, devices, emulated, SecureLab } from "./secure-lab.mjs";
import { main, say } from "./secure-main.mjs";

const suite = "gcm";
const samplesPerSecond = 2000;
/** of the emulated machine's clock with --instructions */
const nsPerInstruction = 4;
const ways = Object.keys(devices);
const wayNames = { esp: "VXLAN over ESP", wg: "VXLAN over WireGuard", vnetd: "vnetd" };
const cores = cpus().map((_, i) => i);

/** What a function is part of: the first that its name fits. One that fits none is part of what called it. */
const parts = Object.entries({
  cipher:
    /^(_?aes|gcm|ghash|h?chacha|poly1305|xor_key|crypto_|aead_|simd_|kernel_fpu|scatterwalk|skcipher|sg_|_?_?skb_to_sgvec|seqiv|echainiv|blake2s|irq_fpu|(helper_)?rfc4106)/,
  "ESP, xfrm": /^(esp_|esp4|_?_?xfrm|verify_replay)/,
  WireGuard: /^wg_/,
  "workers, waking, switching":
    /^(worker_thread|process_one_work|process_scheduled|_?_?queue_work|kick_pool|_?_?schedule|preempt_schedule|try_to_wake|ttwu|_?_?wake_up|autoremove_wake|sock_def_readable|kthread|finish_task|pick_next|(de|en)queue_task|smpboot|run_ksoftirqd)/,
  "our programs and what they call":
    /^(bpf_|_?_?_?_?bpf_|skb_do_redirect|tcx_|_?_?htab_|array_map|percpu_|lookup_nulls|trie_)/,
  VXLAN: /^(vxlan|udp_tunnel|iptunnel|gro_cell)/,
  "sockets, and the programs that use them":
    /^(udp_(sendmsg|recvmsg)|__skb_recv|__skb_wait|__ip_append|__ip_make|ip_(make_skb|setup_cork|generic_getfrag)|sock_|_?_?_?_?_?_?(x64_)?sys_|do_syscall|_?_?(do_)?(send|recv)mmsg|entry_SYSCALL)/,
  "UDP, IP, routes, neighbours":
    /^(_?_?udp|_?_?ip_|inet|fib_|rt_|ipv4_|icmp|neigh|dst_|raw_local|nf_)/,
  "devices, queues, softirq":
    /^(veth|_?_?dev_|_?_?netif_|_?_?napi|net_[rt]x|process_backlog|enqueue_to_backlog|sch_|validate_xmit|(__)?do_softirq|handle_softirqs|__local_bh|eth_|xmit|qdisc|arp)/,
});
const sockets = "sockets, and the programs that use them";
const rest = "all else";
const idle =
  /^(pv_native_safe_halt|default_idle|cpu_idle|do_idle|cpuidle|intel_idle|acpi_idle|poll_idle)/;

/** frames: from the innermost function out */
function partOf(comm, frames) {
  for (const frame of frames) {
    const found = parts.find(([, pattern]) => pattern.test(frame));
    if (found) return found[0];
  }
  return comm === "packets" ? sockets : rest;
}

/** Of what `perf script` says: {cpu, part} of each sample; part is undefined where the core had nothing to do. */
function samples(text) {
  const blocks = text.split("\n\n").map((block) => block.split("\n").filter((line) => line.trim()));
  return blocks.flatMap(([head, ...calls]) => {
    const found = /^\s*(.*?)\s+\[(\d+)\]/.exec(head ?? "");
    if (!found) return [];
    const frames = calls.map((line) => line.trim().split(/\s+/)[1] ?? "");
    const busy = !frames.slice(0, 4).some((frame) => idle.test(frame));
    return [{ cpu: Number(found[2]), part: busy ? partOf(found[1], frames) : undefined }];
  });
}

/** It begins when it is told to, and says so: to start takes it seconds in an emulated machine. Gives what ends it. */
async function startPerf(file) {
  const argv = ["record", "-q", "-a", "-g", "-e", "cpu-clock", "-F", String(samplesPerSecond)];
  argv.push("-N", "-B", "-D", "-1", "--control", "fd:3,4", "-o", file);
  const perf = spawn("perf", argv, { stdio: ["ignore", "inherit", "inherit", "pipe", "pipe"] });
  const ended = Promise.race([once(perf, "close"), once(perf, "error")]);
  perf.stdio[3].write("enable\n");
  const began = await Promise.race([once(perf.stdio[4], "data"), ended.then(() => undefined)]);
  if (began === undefined) throw new Error("perf record ended before it began");
  return async () => {
    perf.kill("SIGINT");
    await ended;
  };
}

async function profiled(lab, way, { seconds }) {
  const file = join(lab.directory, "perf.data");
  const stop = await startPerf(file);
  try {
    await udp(...lab.hosts, lab.target(suite, way), { seconds });
  } finally {
    await stop();
  }
  const argv = ["script", "-i", file, "-F", "comm,cpu,ip,sym"];
  const script = spawnSync("perf", argv, { encoding: "utf8", maxBuffer: 1 << 30 });
  if (script.status !== 0) throw new Error(`perf script: ${script.stderr}`);
  return samples(script.stdout);
}

const switches = () => Number(/^ctxt (\d+)/m.exec(readFileSync("/proc/stat", "utf8"))[1]);

async function runOnce(lab, way, { seconds }) {
  const before = switches();
  const { thousands, received, sent } = await udp(...lab.hosts, lab.target(suite, way), {
    seconds,
  });
  say(`${way} ${thousands.toFixed(2)}, ${sent} sent, ${received} received\n`);
  return { thousands, sentFor: sent / received, switched: (switches() - before) / received };
}

async function measure(o) {
  const lab = new SecureLab();
  try {
    await lab.build();
    for (const { daemon } of lab.hosts) daemon.kill("SIGSTOP");
    const rounds = Object.fromEntries(ways.map((way) => [way, []]));
    // the first is a warm-up
    for (let round = -1; round < o.rounds; round += 1) {
      for (const way of turned(ways, Math.max(round, 0))) {
        const one = await runOnce(lab, way, o);
        if (round >= 0) rounds[way].push({ ...one, found: await profiled(lab, way, o) });
      }
    }
    return text(rounds, o);
  } finally {
    lab.close();
  }
}

/** How much of what a core did, of all its samples that are not idle; of one core, or of all. */
function share(rounds, part, core) {
  const here = rounds
    .flatMap(({ found }) => found)
    .filter((each) => core === undefined || each.cpu === core);
  const busy = here.filter((each) => each.part !== undefined);
  return busy.filter((each) => each.part === part).length / Math.max(busy.length, 1);
}

const rounded = (value) => (Math.round(value / 50) * 50).toLocaleString("en-US");

/** On one core what a packet takes, instructions where those are counted, else µs; on several per cent of what each core does. */
function partsRows(rounds, o) {
  const cell = (way, part) => {
    const each = rounds[way];
    if (cores.length > 1)
      return cores.map((core) => (100 * share(each, part, core)).toFixed(0)).join(" + ");
    const us = (1e3 * share(each, part)) / median(each.map(({ thousands }) => thousands));
    return o.instructions ? rounded((1e3 * us) / nsPerInstruction) : us.toFixed(1);
  };
  return [...parts.map(([name]) => name), rest].map((part) => {
    const cells = Object.keys(wayNames).map((way) => cell(way, part));
    return `| ${part} | ${cells.join(" | ")} |`;
  });
}

/** Per cent of the time in which each core had something to do. */
const busyOf = (rounds) =>
  cores.map((core) => {
    const here = rounds.flatMap(({ found }) => found).filter(({ cpu }) => cpu === core);
    const busy = here.filter(({ part }) => part !== undefined).length;
    return ((100 * busy) / Math.max(here.length, 1)).toFixed(0);
  });

function text(rounds, o) {
  const columns = Object.keys(wayNames);
  const row = (name, cell) =>
    `| ${name} | ${columns.map((way) => cell(rounds[way], way)).join(" | ")} |`;
  const of = (way, what) => rounds[way].map((each) => each[what]);
  const clock = o.instructions ? "in which each instruction takes 4 ns" : "a thread for each core";
  return [
    `- taken: ${new Date().toISOString().slice(0, 10)}, Linux ${kernel()}`,
    `- machine: ${emulated ? `QEMU, ${clock}; ` : ""}${cpuModel()}`,
    `- ciphers: ${cipherFacts([suite])}`,
    `- rounds: ${o.rounds} of ${o.seconds} s, and as many with perf, ${samplesPerSecond} samples a second`,
    "",
    `| on ${cores.length} ${cores.length === 1 ? "core" : "cores"}, ${ciphers[suite].name} | ${Object.values(wayNames).join(" | ")} |`,
    `|---|${columns.map(() => "---:|").join("")}`,
    row("1000 packets/s", (_, way) => absolute(of(way, "thousands"))),
    row("vnetd / it, median (least–most)", (_, way) =>
      way === "vnetd" ? "1" : ratioText(ratios(of("vnetd", "thousands"), of(way, "thousands"))),
    ),
    ...(o.instructions
      ? [
          row("instructions for each", (_, way) =>
            rounded(1e6 / median(of(way, "thousands")) / nsPerInstruction),
          ),
        ]
      : []),
    row("sent for each that arrived", (_, way) => median(of(way, "sentFor")).toFixed(2)),
    row("switches of context for each", (_, way) => median(of(way, "switched")).toFixed(2)),
    ...(cores.length > 1
      ? [row("per cent of each core's time", (each) => busyOf(each).join(" + "))]
      : []),
    ...partsRows(rounds, o),
    "",
  ].join("\n");
}

await main("profile", measure, ["instructions"]);
