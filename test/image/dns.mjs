// SPDX-License-Identifier: Apache-2.0
/**
 * A DNS server for one name, as a cluster's is for a headless Service: its A records are the addresses in a file, which is read for
 * each question. Other names are not there.
 *
 *   dns.mjs ADDRESS NAME FILE
 */
import { createSocket } from "node:dgram";
import { readFileSync } from "node:fs";

const [address, name, file] = process.argv.slice(2);

function answer(query) {
  let at = 12;
  const labels = [];
  while (query[at] !== 0) {
    labels.push(query.toString("latin1", at + 1, at + 1 + query[at]));
    at += 1 + query[at];
  }
  const question = query.subarray(12, at + 5);
  const type = query.readUInt16BE(at + 1);
  const known = labels.join(".").toLowerCase() === name;
  const addresses =
    known && type === 1 ? readFileSync(file, "utf8").split("\n").filter(Boolean) : [];
  const header = Buffer.alloc(12);
  query.copy(header, 0, 0, 2);
  header.writeUInt16BE(known ? 0x8580 : 0x8583, 2);
  header.writeUInt16BE(1, 4);
  header.writeUInt16BE(addresses.length, 6);
  const records = addresses.map((each) =>
    Buffer.from([0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4, ...each.split(".").map(Number)]),
  );
  return Buffer.concat([header, question, ...records]);
}

const socket = createSocket("udp4");
socket.on("message", (query, { port, address: from }) => {
  if (query.length > 16) socket.send(answer(query), port, from);
});
socket.bind(53, address, () => console.log("listening"));
