// SPDX-License-Identifier: Apache-2.0
/**
 * The tables of the other test files in the other forms of the outer packet: UDP over IPv6, and
 * EtherIP over both (test/lib/forms.ts). What differs from form to form is in form-rows.ts.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { vnetdControlOp } from "../../src/generated/layouts.js";
import { expectBytes, macBytes, mappedBytes } from "../lib/bytes.js";
import { BpfLab } from "../lib/bpf-lab.js";
import { FORMS } from "../lib/forms.js";
import { DECAP_ROWS } from "./decap-rows.js";
import { ENCAP_KINDS, ENCAP_ROWS } from "./encap-rows.js";
import { FORM_ROWS } from "./form-rows.js";
import { GUEST_A, GUEST_B, PEER, US, paddedFor, rowsFor, runRow } from "./rows.js";

describe.each(FORMS)("%s", (form) => {
  let lab: BpfLab | undefined;
  beforeAll(() => {
    lab = BpfLab.open({ form });
  });
  afterAll(() => lab?.close());

  /** from host US to host PEER; the lab plays one after the other */
  const carry = (frame: Buffer, toGroup: boolean): Buffer => {
    lab!.underlay({ address: US });
    const sender = lab!.vnet();
    const addr = mappedBytes(PEER);
    const mac = macBytes(GUEST_B);
    if (!toGroup) lab!.control(vnetdControlOp.CTL_LEARN, sender, { mac, addr });
    const sent = lab!.run("vnetd_encap", frame);
    expect(sent).toMatchObject({ verdict: "redirect", drops: [] });
    lab!.underlay({ address: PEER });
    const receiver = lab!.vnet();
    const received = lab!.run("vnetd_decap", sent.output);
    expect(received).toMatchObject({ verdict: "redirect", drops: [], mark: 0 });
    expect(lab!.learned(receiver, GUEST_A)?.host).toBe(US);
    expect(lab!.traffic(receiver)).toMatchObject({
      decapFrames: 1,
      decapBytes: frame.length,
      floodedFrames: toGroup ? 1 : 0,
    });
    return received.output;
  };
  describe.each([
    ["to a host", false],
    ["to the group", true],
  ])("what is sent %s arrives as it was", (_to, toGroup) => {
    it.each(Object.entries(ENCAP_KINDS))("%s", (_kind, { frame }) => {
      const bytes = frame.build();
      expectBytes(carry(bytes, toGroup), paddedFor(form, bytes));
    });
  });

  const tables = { own: FORM_ROWS, ...(form === "udp4" ? {} : { DECAP_ROWS, ENCAP_ROWS }) };
  for (const [table, rows] of Object.entries(tables)) {
    for (const row of rowsFor(form, rows)) {
      it(`${table}: ${row.description}`, () => runRow(lab!, row));
    }
  }
});
